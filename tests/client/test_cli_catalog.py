"""`rm` and `deploy`: what is printed, what they exit with, what is to be done next."""

from __future__ import annotations

import asyncio
import os
import pty
import sys

import grpc
import pytest
from model_ingest.cli._run import run
from model_ingest.v1.catalog_service_pb2 import DeleteModelResponse
from model_ingest.v1.resources_pb2 import Deployment, Ingest, Model

from tests.client.scripted_server import Script, ingest, refuses
from tests.client.test_cli_process import run as run_process

_Removal = DeleteModelResponse.TargetRemoval
REMOVED = DeleteModelResponse(
    model=Model(name="models/m:latest", display_name="M:latest"),
    targets=[_Removal(target="a", removed=True), _Removal(target="b")],
)


@pytest.mark.extended
async def test_rm_says_what_each_target_did(script: Script):
    script.answers("DeleteModel", REMOVED)
    ended = await run_process(script.address, "rm", "M", "--target", "b", "--all-targets")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == ["target a: removed", "target b: had no such model", "removed M:latest"]
    (request,) = script.seen("DeleteModel")
    assert (request.name, list(request.targets), request.all_targets) == ("models/M", ["b"], True)
    ended = await run_process(script.address, "rm", "M", "--json")
    (one,) = ended.objects
    assert one["type"] == "removed"
    assert one["model"]["name"] == "models/m:latest"
    assert one["targets"] == [{"target": "a", "removed": True}, {"target": "b", "removed": False}]


@pytest.mark.extended
async def test_rm_says_where_ollama_has_it_still(script: Script):
    model = Model(
        name="models/m:latest",
        display_name="M:latest",
        deployments=[
            Deployment(target="a", state=Deployment.STATE_READY),
            Deployment(target="b", state=Deployment.STATE_READY),
            Deployment(target="c", state=Deployment.STATE_FAILED),
        ],
    )
    answer = DeleteModelResponse(model=model, targets=[_Removal(target="a", removed=True)])
    script.answers("DeleteModel", answer)
    ended = await run_process(script.address, "rm", "M", "--target", "a")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "target a: removed",
        "removed M:latest",
        "not removed from b; `model-ingest rm M --target b` does that",
    ]


TWO_READY = Model(
    name="models/m:latest",
    display_name="M:latest",
    deployments=[Deployment(target=target, state=Deployment.STATE_READY) for target in ("a", "b")],
)


async def test_rm_says_before_where_it_stays_and_removes_nothing_without_a_yes(script: Script):
    script.answers("GetModel", TWO_READY)
    script.answers("DeleteModel", DeleteModelResponse(model=TWO_READY))
    for options in (["--target", "a"], ["--target", "a", "--json"]):
        ended = await run_process(script.address, "rm", "M", *options)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.splitlines() == [
            "M:latest stays on b: Ollama goes on serving it there.",
            "nothing was removed",
            "next: add --all-targets to remove it there too, or --yes to leave it there",
        ]
    assert script.seen("DeleteModel") == []
    for options in (["--target", "a", "--yes"], ["--target", "a", "--target", "b"]):
        ended = await run_process(script.address, "rm", "M", *options)
        assert (ended.code, ended.err) == (0, "")
    assert len(script.seen("DeleteModel")) == 2


@pytest.mark.extended_unless("y-0")
@pytest.mark.parametrize(("typed", "code"), [("y", 0), ("", 2)])
async def test_rm_asks_on_a_terminal(script: Script, typed: str, code: int):
    script.answers("GetModel", TWO_READY)
    script.answers("DeleteModel", DeleteModelResponse(model=TWO_READY))
    main, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "model_ingest.cli", "rm", "M", "--server", script.address),
        stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    # Typed ahead: the terminal keeps it until it is read.
    os.write(main, f"{typed}\n".encode())
    assert await asyncio.wait_for(process.wait(), 60) == code
    shown = os.read(main, 65536).decode()
    os.close(main)
    assert "M:latest stays on a, b" in shown
    assert len(script.seen("DeleteModel")) == (code == 0)


async def test_rm_of_what_the_catalog_forgot(script: Script):
    script.on("GetModel", refuses(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "no such model"))
    script.answers("DeleteModel", DeleteModelResponse(targets=[_Removal(target="b", removed=True)]))
    ended = await run_process(script.address, "rm", "M", "--target", "b")
    assert (ended.code, ended.err, ended.out) == (0, "", "target b: removed\n")


async def test_rm_that_is_refused_says_what_to_do(script: Script):
    busy = refuses(grpc.StatusCode.FAILED_PRECONDITION, "MODEL_BUSY", "on its way", metadata={"ingest": "i7"})
    away = refuses(grpc.StatusCode.UNAVAILABLE, "TARGET_UNREACHABLE", "target a: no", retry_after_seconds=5)
    for handler, code, advice in (
        (busy, 3, "next: `model-ingest watch i7` until it has ended, or `model-ingest cancel i7`; then run"),
        (
            away,
            4,
            "next: run the same command again once the target answers, or name the others with ",
        ),
    ):
        script.on("DeleteModel", handler)
        ended = await run_process(script.address, "rm", "m", "--all-targets")
        assert ended.code == code
        assert advice in ended.err
    # Said once: the caller decides about another try.
    assert len(script.seen("DeleteModel")) == 2


async def test_deploy_follows_the_new_ingest(script: Script):
    one = ingest(Ingest.STATE_READY, done=True, last_sequence=0)
    script.answers("DeployModel", one)
    script.answers("GetIngest", one)
    script.streams()
    ended = await run_process(script.address, "deploy", "m", "--target", "a", "--json")
    assert ended.code == 0
    assert ended.objects[-1]["type"] == "result"
    (request,) = script.seen("DeployModel")
    assert (request.name, list(request.targets)) == ("models/m", ["a"])
    assert request.request_id


def test_help_no_longer_says_that_they_are_missing(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        run(["--help"])
    words = capsys.readouterr().out
    assert "not served yet" not in "\n".join(
        line for line in words.splitlines() if line.strip().startswith(("rm", "deploy"))
    )
