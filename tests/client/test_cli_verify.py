"""`model-ingest verify`: what it shows, and the exit code of each outcome."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from model_ingest.v1.catalog_service_pb2 import VerifyModelResponse
from model_ingest.v1.resources_pb2 import Deployment, Model, StoredFile

from tests.client.scripted_server import Script, refusal
from tests.client.test_cli_process import _environment, _read_all, run

READY, CANCELLED = Deployment.STATE_READY, Deployment.STATE_CANCELLED
Verdict = VerifyModelResponse.TargetVerdict
CORRUPT = refusal(
    grpc.StatusCode.DATA_LOSS,
    "BLOB_CORRUPT",
    "The stored bytes of b.gguf are rotten.",
    metadata={"count": "1"},
)


def scripted(script: Script, *verdicts: Verdict, ends: Any = None) -> None:
    """A model of two files on `a` (and once on `b`), both read to their end."""
    model = Model(
        name="models/m:latest",
        display_name="M:latest",
        files=[StoredFile(file_name=name, size_bytes=10) for name in ("a.gguf", "b.gguf")],
        deployments=[Deployment(target="a", state=READY), Deployment(target="b", state=CANCELLED)],
    )
    script.answers("GetModel", model)

    async def verify(request: Any, context: Any) -> AsyncIterator[VerifyModelResponse]:
        for name in ("a.gguf", "b.gguf"):
            for verified in (0, 5, 10):
                yield VerifyModelResponse(file_name=name, verified_bytes=verified, size_bytes=10)
        yield VerifyModelResponse(targets=verdicts)
        if ends is not None:
            await context.abort_with_status(ends)

    script.on("VerifyModel", verify)


ALL_WELL = (Verdict(target="a", present=True), Verdict(target="b", message="Not deployed\x1b[2J there."))


async def test_all_is_right(script: Script) -> None:
    scripted(script, *ALL_WELL)
    ended = await run(script.address, "verify", "m")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "a.gguf: read 5 B of 10 B (50 %)",
        "a.gguf: read 10 B of 10 B (100 %)",
        "b.gguf: read 5 B of 10 B (50 %)",
        "b.gguf: read 10 B of 10 B (100 %)",
        "target a: there",
        "target b: not there (Not deployed [2J there.)",
        "done: all 20 B stored of M:latest are right",
    ]


@pytest.mark.extended
@pytest.mark.parametrize("as_json", [False, True])
async def test_a_target_lacks_the_model(script: Script, *, as_json: bool) -> None:
    scripted(script, Verdict(target="a", unknown=True), Verdict(target="b"))
    ended = await run(script.address, "verify", "m", *(["--json"] if as_json else []))
    assert (ended.code, ended.err) == (4, "")
    if as_json:
        assert [shown["type"] for shown in ended.objects] == ["verify"] * 7 + ["result"]
        assert ended.objects[1]["verified_bytes"] == 5
        assert ended.objects[-1] == {
            "type": "result", "exit_code": 4, "model": "models/m:latest", "lacking": ["a"], "lost": []
        }  # fmt: skip
    else:
        assert ended.out.endswith(
            "done: all 20 B stored of M:latest are right; but not confirmed on a\n"
            "next: run this again once a answers (`model-ingest targets`)\n"
        )


@pytest.mark.extended_unless("False")
@pytest.mark.parametrize("as_json", [False, True])
async def test_damage_is_never_exit_code_0(script: Script, *, as_json: bool) -> None:
    scripted(script, *ALL_WELL, ends=CORRUPT)
    ended = await run(script.address, "verify", "m", *(["--json"] if as_json else []))
    assert ended.code == 3
    assert ended.err.startswith("error: The stored bytes of b.gguf are rotten. (BLOB_CORRUPT)\nnext: ")
    assert "right" not in ended.out
    if as_json:
        assert ended.objects[-1]["exit_code"] == 3
        assert ended.objects[-1]["error"]["metadata"] == {"count": "1"}
    else:
        assert "target a: there" in ended.out


@pytest.mark.extended
async def test_on_a_terminal(script: Script) -> None:
    scripted(script, *ALL_WELL)
    leader, follower = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "model_ingest.cli", "verify", "m",
        stdout=follower, stderr=follower,
        env={**_environment(script.address), "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(follower)
    text = await asyncio.to_thread(_read_all, leader)
    assert await process.wait() == 0
    assert "\x1b[" in text
    assert "\x1b[2J there" not in text
    assert "reading a.gguf" in text
    assert "10 B of 10 B" in text
    assert "done: all 20 B stored of M:latest are right" in text
