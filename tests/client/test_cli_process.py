"""The command as a process: output, exit codes, Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from model_ingest.v1.catalog_service_pb2 import ListModelsResponse
from model_ingest.v1.errors_pb2 import Failure, Reason
from model_ingest.v1.ingest_service_pb2 import ListIngestsResponse
from model_ingest.v1.resources_pb2 import Deployment, DeploymentStateChange, File, Ingest, Model, Notice

from tests.client.scripted_server import Script, event, ingest, refuses
from tests.client.test_push import stores
from tests.support.raw_server import End, RawServer


@dataclass
class Ended:
    code: int | None
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def _environment(address: str) -> dict[str, str]:
    return {**os.environ, "MODEL_INGEST_SERVER": address}


async def start(address: str, *arguments: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "model_ingest.cli",
        *(str(argument) for argument in arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(address),
    )


async def run(address: str, *arguments: object) -> Ended:
    return await end(await start(address, *arguments))


async def end(process: asyncio.subprocess.Process) -> Ended:
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert b"Traceback" not in err, err.decode()
    return Ended(process.returncode, out.decode(), err.decode())


async def test_push_plain(script: Script, ten_bytes: Path):
    stores(script)
    ended = await run(script.address, "push", ten_bytes, "--name", "m", "--store-only")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "ingests/i1: m:latest accepted, 10 B"
    assert lines[-1] == "done: m:latest is stored"
    assert "\x1b" not in ended.out


async def test_push_json(script: Script, ten_bytes: Path):
    stores(script)
    ended = await run(script.address, "push", ten_bytes, "--name", "m", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert [shown["type"] for shown in ended.objects] == ["accepted", "event", "event", "event", "result"]
    assert ended.objects[-1]["ingest"]["state"] == "STORED"


async def test_push_refused(script: Script, ten_bytes: Path):
    refusal = refuses(
        grpc.StatusCode.INVALID_ARGUMENT, "NAME_INVALID", "bad name", violations=[("model", "no host part")]
    )
    script.on("CreateIngest", refusal)
    ended = await run(script.address, "push", ten_bytes, "--name", "../m", "--json")
    assert ended.code == 3
    lines = ended.err.splitlines()
    assert lines[0] == "error: bad name (NAME_INVALID)"
    assert lines[1] == "  model: no host part"
    assert lines[2].startswith("next: choose another --name")
    assert ended.objects[-1]["error"]["reason"] == "NAME_INVALID"
    assert ended.objects[-1]["exit_code"] == 3


async def test_push_failed_on_a_target(script: Script, ten_bytes: Path):
    failure = Failure(reason=Reason.TARGET_REFUSED, message="unsupported")
    last = ingest(Ingest.STATE_FAILED, done=True)
    last.deployments.add(target="a", state=Deployment.STATE_FAILED).failure.CopyFrom(failure)
    change = DeploymentStateChange(target="a", state=Deployment.STATE_FAILED, failure=failure)
    stores(script, event(4, deployment_state=change), last=last)
    ended = await run(script.address, "push", ten_bytes, "--name", "m")
    assert ended.code == 4
    assert "a: failed: unsupported (TARGET_REFUSED)" in ended.out
    assert ended.err.startswith("error: target a: unsupported (TARGET_REFUSED)\nnext: the model is stored")


async def test_nobody_there(ten_bytes: Path):
    ended = await run("127.0.0.1:1", "push", ten_bytes, "--name", "m")
    assert ended.code == 5
    assert ended.out == ""
    assert ended.err.startswith("error: cannot reach 127.0.0.1:1: ")
    assert len(ended.err.splitlines()) == 2, "grpc's own log lines are not ours"


@pytest.mark.extended
async def test_a_file_that_is_not_there(script: Script, tmp_path: Path):
    ended = await run(script.address, "push", tmp_path / "none", "--name", "m")
    assert ended.code == 2
    assert "No such file" in ended.err


@pytest.mark.extended
@pytest.mark.parametrize(
    "arguments",
    [["cancel", "i1"], ["retry", "i1"], ["verify", "m"], ["deploy", "m"], ["rm", "m"], ["targets"]],
    ids=" ".join,
)
async def test_what_this_version_does_not_serve(script: Script, arguments: list[str]):
    ended = await run(script.address, *arguments)
    assert ended.code == 3
    assert ended.err.startswith(f"error: this server does not serve `{arguments[0]}` yet\n")


async def test_looking_around(script: Script):
    script.answers("GetIngest", ingest(Ingest.STATE_READY, done=True))
    script.answers("ListIngests", ListIngestsResponse(ingests=[ingest()]))
    model = Model(name="models/m:latest", display_name="m:latest", size_bytes=5)
    script.answers("ListModels", ListModelsResponse(models=[model]))
    script.answers("GetModel", model)
    for arguments, words in (
        (["status", "i1"], "ingests/i1  m:latest  READY"),
        (["ls"], "m:latest"),
        (["ls", "--ingests"], "UPLOADING"),
        (["show", "m"], "m:latest: 5 B, stored"),
    ):
        ended = await run(script.address, *arguments)
        assert (ended.code, ended.err) == (0, "")
        assert words in ended.out
    ended = await run(script.address, "ls", "--json")
    assert ended.objects[0]["type"] == "model"
    assert ended.objects[0]["size_bytes"] == 5


@pytest.mark.extended
async def test_watch_replays_and_ends(script: Script):
    script.answers("GetIngest", ingest(Ingest.STATE_STORED, done=True, last_sequence=3))
    script.streams(*(event(n, notice=Notice(message=f"n{n}")) for n in (1, 2, 3)))
    ended = await run(script.address, "watch", "i1", "--after", "1")
    assert ended.out.splitlines() == ["note: n2", "note: n3", "done: m:latest is stored"]


async def _hanging_push(script: Script, path: Path, *more: str) -> asyncio.subprocess.Process:
    stores(script)

    async def hang(messages, context):
        await asyncio.sleep(3600)

    script.on("Upload", hang)
    process = await start(script.address, "push", path, "--name", "m", *more)
    while not script.seen("Upload") or not script.seen("WatchIngest"):
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    return process


async def test_ctrl_c_while_sending(script: Script, ten_bytes: Path):
    process = await _hanging_push(script, ten_bytes, "--json")
    process.send_signal(signal.SIGINT)
    ended = await end(process)
    assert ended.code == 130
    lines = ended.err.splitlines()
    assert lines[0].startswith("interrupted: 0 B of 10 B of model.gguf were safe on the server; ")
    assert lines[1] == "next: run the same command again; it starts anew"
    assert ended.objects[-1]["exit_code"] == 130
    assert ended.objects[-1]["ingest"]["name"] == "ingests/i1"


@pytest.mark.extended
async def test_ctrl_c_while_a_target_works(script: Script):
    forwarding = ingest(Ingest.STATE_FORWARDING)
    script.answers("GetIngest", forwarding)

    async def endless(request, context):
        yield event(1, notice=Notice(message="still at it"))
        await asyncio.sleep(3600)

    script.on("WatchIngest", endless)
    process = await start(script.address, "watch", "i1")
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    ended = await end(process)
    assert ended.code == 130
    assert ended.err.splitlines() == [
        "interrupted: ingests/i1 goes on without this command",
        "next: model-ingest watch ingests/i1",
    ]


@pytest.mark.extended
async def test_nobody_reads_stdout(script: Script, ten_bytes: Path):
    stores(script)
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m model_ingest.cli push {ten_bytes} --name m | true",
        stderr=asyncio.subprocess.PIPE,
        env=_environment(script.address),
    )
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert b"Traceback" not in err
    assert b"Exception ignored" not in err


async def test_push_on_a_terminal(script: Script, ten_bytes: Path):
    last = ingest(Ingest.STATE_READY, done=True)
    last.deployments.add(target="a", state=Deployment.STATE_READY)
    change = DeploymentStateChange(target="a", state=Deployment.STATE_READY)
    stores(script, event(4, deployment_state=change), last=last)
    leader, follower = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "model_ingest.cli",
        "push",
        str(ten_bytes),
        "--name",
        "m",
        stdout=follower,
        stderr=follower,
        env={**_environment(script.address), "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(follower)
    text = await asyncio.to_thread(_read_all, leader)
    assert await process.wait() == 0
    assert "\x1b[" in text
    assert "model.gguf" in text
    assert "done: m:latest is ready on a" in text


def _read_all(descriptor: int) -> str:
    parts: list[bytes] = []
    try:
        while part := os.read(descriptor, 65536):
            parts.append(part)
    except OSError:
        # The other side closed: how a terminal says end of file.
        pass
    finally:
        os.close(descriptor)
    return b"".join(parts).decode()


@pytest.mark.extended
async def test_a_black_hole_ends(ten_bytes: Path):
    async def swallow(end: End) -> None:
        await end.reader.read()

    # What the client allows is less (test_connection.py); this is for a busy machine.
    async with RawServer(swallow) as server, asyncio.timeout(60):
        address = server.address
        ended = await run(address, "push", ten_bytes, "--name", "m")
    assert ended.code == 5
    assert f"cannot reach {address}: " in ended.err


def test_file_states_are_all_worded():
    from model_ingest.cli._words import _FILE_PHASES

    assert set(_FILE_PHASES) == set(File.State.values()) - {File.STATE_UNSPECIFIED}


#: Stops where the command imports grpc, which takes the longest, and tells so.
_HELD_UP = """
import signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "grpc":
            print("importing", flush=True)
            signal.pause()
sys.meta_path.insert(0, Finder())
from model_ingest.cli import main
sys.exit(main(["models"]))
"""


@pytest.mark.extended
async def test_ctrl_c_while_it_imports_is_quiet():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HELD_UP, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"importing\n"
    process.send_signal(signal.SIGINT)
    ended = await end(process)
    assert (ended.code, ended.out, ended.err) == (130, "", "")
