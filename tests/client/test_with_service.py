"""The command against the real service, store only: the whole way, and what happens when a side dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from model_ingest import AsyncClient, Ingest
from model_ingest.v1.resources_pb2 import File

from tests.client.test_cli_process import end, run, start
from tests.formats.build import Gguf, u32
from tests.support.models import beginning, model
from tests.support.ports import ReservedPort


def write_gguf(path: Path, size_bytes: int = 0) -> Path:
    path.write_bytes(model(size_bytes))
    return path


class Service:
    """`python -m ingest_service serve` in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # The same over kills and new starts: clients come back to it.
        self.reserved = ReservedPort()
        self.address = self.reserved.address
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ingest_service",
            "serve",
            env={
                **os.environ,
                "INGEST_LISTEN": self.address,
                "INGEST_DATA_DIR": str(self._directory),
                "INGEST_TARGETS": "",
            },
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self.process.stderr is not None
        async with asyncio.timeout(120):
            while line := await self.process.stderr.readline():
                if b"message=serving " in line:
                    self._drain = asyncio.create_task(self.process.stderr.read())
                    return
        raise AssertionError("the service did not start")

    async def end(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)
        await self.process.wait()
        await self._drain


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    running = Service(tmp_path / "data")
    await running.start()
    yield running
    await running.end(signal.SIGKILL)
    running.reserved.close()


@pytest.mark.extended
async def test_there_and_back(service: Service, tmp_path: Path):
    path = write_gguf(tmp_path / "My model.gguf", 3 * 2**20 + 5)
    pushed = await run(service.address, "push", path, "--name", "Team/Model", "--json")
    assert (pushed.code, pushed.err) == (0, "")
    result = pushed.objects[-1]["ingest"]
    assert result["state"] == "STORED"
    assert result["files"][0]["committed_size"] == path.stat().st_size

    again = await run(service.address, "push", path, "--name", "other", "--declare-digest")
    assert again.code == 0
    assert "nothing to send" in again.out

    listed = await run(service.address, "ls")
    assert {line.split()[0] for line in listed.out.splitlines()[1:]} == {"Team/Model:latest", "other:latest"}
    shown = await run(service.address, "show", "team/model")
    assert result["files"][0]["sha256"] in shown.out
    watched = await run(service.address, "watch", result["name"])
    assert watched.out.splitlines()[-1] == "done: Team/Model:latest is stored"
    status = await run(service.address, "status", result["name"].removeprefix("ingests/"))
    assert "STORED" in status.out


@pytest.mark.extended
async def test_refusals(service: Service, tmp_path: Path):
    good = write_gguf(tmp_path / "good.gguf")
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"no model at all")
    empty = tmp_path / "empty.gguf"
    empty.touch()
    for arguments, reason in (
        ([bad, "--name", "m"], "FORMAT_INVALID"),
        ([empty, "--name", "m"], "SIZE_LIMIT"),
        ([good, "--name", "../m"], "NAME_INVALID"),
        ([good, "--name", "m", "--target", "nix"], "TARGET_UNKNOWN"),
        ([good, bad, "--name", "m"], "OPTION_UNSUPPORTED"),
        ([good, "--name", "m", "--quantize", "Q9"], "OPTION_UNSUPPORTED"),
    ):
        ended = await run(service.address, "push", *arguments)
        assert ended.code == 3, ended
        assert f"({reason})" in ended.err
    assert (await run(service.address, "status", "nothing")).code == 3
    assert "(MODEL_NOT_FOUND)" in (await run(service.address, "verify", "m")).err


@pytest.mark.extended
async def test_all_defects_of_a_file_are_told(service: Service, tmp_path: Path):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(Gguf().but({"llama.block_count": u32(0), "llama.context_length": None}).file())
    ended = await run(service.address, "push", bad, "--name", "m", "--json")
    lines = ended.err.splitlines()
    assert "(rule M1, byte " in lines[0]
    assert lines[1] == "  llama.block_count"
    assert lines[2].startswith("  llama.context_length: The model does not say")
    told = ended.objects[-1]["error"]["violations"]
    assert [one["field"] for one in told] == ["llama.block_count", "llama.context_length"]


async def _pushing(
    service: Service, tmp_path: Path, size_bytes: int = 6 * 2**30
) -> tuple[asyncio.subprocess.Process, str]:
    """A push of a file that is large enough to be met in the middle."""
    path = tmp_path / "large.gguf"
    path.write_bytes(beginning(size_bytes, 1000))
    os.truncate(path, size_bytes)
    process = await start(service.address, "push", path, "--name", "large")
    assert process.stdout is not None
    accepted = (await process.stdout.readline()).decode()
    while b"sending" not in await process.stdout.readline():
        pass
    return process, accepted.partition(":")[0]


@pytest.mark.extended
async def test_the_command_is_interrupted(service: Service, tmp_path: Path):
    process, name = await _pushing(service, tmp_path)
    process.send_signal(signal.SIGINT)
    ended = await end(process)
    assert ended.code == 130
    assert ended.err.startswith("interrupted: ")
    assert name in ended.err
    async with AsyncClient(service.address) as client, asyncio.timeout(20):
        while (ingest := await client.get_ingest(name)).files[0].state != File.STATE_UPLOADING:
            await asyncio.sleep(0.05)
        assert (ingest.state, ingest.done) == (Ingest.STATE_UPLOADING, False)


@pytest.mark.extended
async def test_the_service_is_killed_and_comes_back(service: Service, tmp_path: Path):
    process, _ = await _pushing(service, tmp_path, 2**28)
    await service.end(signal.SIGKILL)
    await service.start()
    ended = await end(process)
    assert (ended.code, ended.err) == (0, "")
