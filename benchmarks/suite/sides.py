"""What is measured: our server and the naive one, senders, and what the machine does by itself."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.main_path import Memory
from tests.support.models import beginning
from tests.support.ports import ReservedPort
from tests.support.service import ROOT, ServiceProcess, environment

MEBIBYTE = 1024 * 1024


@dataclass
class Server:
    """A server that runs; `loop` is what its loop's monitor said in the end."""

    kind: str
    address: str
    pid: int
    loop: dict[str, Any] = field(default_factory=dict)


def _monitor_line(text: str) -> dict[str, Any]:
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if said.get("message") == "event loop":
                names = ("beats", "stalls", "longest_seconds", "stalled_cpu_seconds", "histogram")
                return {name: said[name] for name in names}
    return {}


@contextlib.asynccontextmanager
async def ours(directory: Path, **settings: Any) -> AsyncIterator[Server]:
    """`python -m ingest_service serve` on SQLite, store only."""
    directory.mkdir(exist_ok=True)
    data, log = directory / "data", directory / "log"
    process = ServiceProcess(environment(data, "", log_format="json", **settings), log)
    del process._variables["INGEST_DATABASE_URL"]
    async with process:
        assert process.process is not None
        server = Server("ours", process.address, process.process.pid)
        yield server
        await process.kill(signal.SIGTERM)
        server.loop = _monitor_line(log.read_text())


@contextlib.asynccontextmanager
async def naive(directory: Path) -> AsyncIterator[Server]:
    """`python -m benchmarks.naive`."""
    directory.mkdir(exist_ok=True)
    reserved = ReservedPort()
    address = reserved.address
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.naive", str(directory), address,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"serving\n"
    server = Server("naive", address, process.pid)
    try:
        yield server
    finally:
        process.terminate()
        rest, _ = await process.communicate()
        server.loop = _monitor_line(rest.decode())


SIDES = {"ours": ours, "naive": naive}


@dataclass(frozen=True)
class Sent:
    """What one round of sending took."""

    size_bytes: int
    seconds: float
    client_cpu_seconds: float
    server_cpu_seconds: float
    peak_bytes: int
    resting_bytes: int

    @property
    def bytes_per_second(self) -> float:
        return self.size_bytes / self.seconds

    def cpu_per_gb(self, *, both: bool = False) -> float:
        """CPU seconds for each 10^9 bytes: the server's, or those of both processes."""
        seconds = self.server_cpu_seconds + (self.client_cpu_seconds if both else 0.0)
        return seconds / self.size_bytes * 1e9


async def send(server: Server, how: str, files: list[tuple[str, str]], name: str) -> Sent:
    """All of them at once, by one sending process."""
    memory = Memory(server.pid)
    cpu_seconds = memory.cpu_seconds()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.suite.sender", how, server.address, name,
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await child.communicate(json.dumps(files).encode())
    if child.returncode:
        raise SystemExit(f"the sender ended with {child.returncode}")
    taken = json.loads(said)
    memory.stop()
    return Sent(
        size_bytes=sum(Path(path).stat().st_size for path, _ in files),
        seconds=taken["seconds"],
        client_cpu_seconds=taken["cpu_seconds"],
        server_cpu_seconds=memory.cpu_seconds() - cpu_seconds,
        peak_bytes=memory.peak_bytes,
        resting_bytes=memory.start_bytes,
    )


def new_file(path: Path, size_bytes: int) -> tuple[str, str]:
    """Random bytes that nobody has yet, behind a header that every format rule accepts; path and digest."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        data = beginning(size_bytes, 1000)
        while data:
            file.write(data)
            digest.update(data)
            data = os.urandom(min(8 * MEBIBYTE, size_bytes - file.tell()))
        # What is written back later would be on the next measurement's bill.
        file.flush()
        os.fdatasync(file.fileno())
    return str(path), f"sha256:{digest.hexdigest()}"


def hash_rate(path: str) -> tuple[float, float]:
    """Bytes per second of one core's sha256, the bytes being in memory; and CPU seconds per 10^9 of them."""
    data = Path(path).read_bytes()[: 256 * MEBIBYTE]
    started, cpu_seconds = time.perf_counter(), time.thread_time()
    hashlib.sha256(data).digest()
    seconds = time.perf_counter() - started
    return len(data) / seconds, (time.thread_time() - cpu_seconds) / len(data) * 1e9


def write_rate(path: str) -> float:
    """Bytes per second of write, in pieces of 1 MiB, and one fdatasync; the bytes are in memory."""
    data = memoryview(Path(path).read_bytes())
    copy = Path(f"{path}.copy")
    started = time.perf_counter()
    with copy.open("wb", buffering=0) as file:
        for offset in range(0, len(data), MEBIBYTE):
            file.write(data[offset : offset + MEBIBYTE])
        os.fdatasync(file.fileno())
    seconds = time.perf_counter() - started
    copy.unlink()
    return len(data) / seconds
