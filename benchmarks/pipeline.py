"""The way of the bytes alone: how close one durable upload comes to what the machine can do.

    .venv/bin/python -m benchmarks.pipeline [--size-bytes N] [--uploads 1,4] [--rounds N] [--directory DIR]
        [--variant NAME=[TREE][,SETTING=VALUE]...]...

Each round takes, in turn: (a) one core's sha256 of the bytes, (b) a raw write and fdatasync of them, and for
each variant and number of uploads (c) the real server, one process for the whole run, fed over its socket by
a raw stub in another process: 1 MiB chunks that were made before, crc32c in each, digest declared, so that
the client costs as little as a client can. A variant is a source tree (empty: this one) with environment
variables.

One JSON object on stdout, medians with the lowest and highest; `ratio` is the median of each round's own
ratio to sha256.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
from model_ingest.v1.ingest_service_pb2 import (
    GetIngestRequest,
    UploadChunk,
    UploadFinish,
    UploadRequest,
    UploadStart,
)
from model_ingest.v1.resources_pb2 import File

from benchmarks.main_path import Memory
from ingest_service.process import tune_allocator
from tests.storage.resident import resident_bytes
from tests.support.files import create_request
from tests.support.models import beginning
from tests.support.service import ROOT, ServiceProcess, environment
from tests.support.stubs import ingest_stub

MEBIBYTE = 1024 * 1024
_DISTINCT = 32
_UPLOAD = "/model_ingest.v1.IngestService/Upload"


@dataclass(frozen=True)
class Variant:
    """What is measured against others in the same run."""

    name: str
    tree: Path
    settings: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Variant:
        name, _, rest = text.partition("=")
        tree, *settings = rest.split(",")
        return cls(name, Path(tree or ROOT), dict(one.split("=", 1) for one in settings))


class Server(ServiceProcess):
    """The server of any source tree."""

    def __init__(self, variables: dict[str, str], log: Path, tree: Path) -> None:
        super().__init__({**variables, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}, log)


def sha256_seconds(blocks: list[bytes], size_bytes: int) -> tuple[float, float]:
    """By the clock, and of the CPU: on a shared machine only the second says what the work costs now."""
    hasher = hashlib.sha256()
    began, cpu = time.perf_counter(), time.process_time()
    for number in range(size_bytes // MEBIBYTE):
        hasher.update(blocks[number % len(blocks)])
    return time.perf_counter() - began, time.process_time() - cpu


def raw_seconds(blocks: list[bytes], size_bytes: int, directory: Path) -> float:
    path = directory / "raw"
    began = time.perf_counter()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in range(size_bytes // MEBIBYTE):
        os.pwrite(descriptor, blocks[number % len(blocks)], number * MEBIBYTE)
    os.fdatasync(descriptor)
    os.close(descriptor)
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def prepared(name: str, size_bytes: int, seed: int, blocks: list[bytes]) -> tuple[list[bytes], str]:
    """All messages of one upload, as they go over the wire, but for the start; the digest."""
    first = beginning(size_bytes, MEBIBYTE, seed)
    messages, hasher = [], hashlib.sha256()
    crcs = [google_crc32c.value(block) for block in blocks]
    for offset in range(0, size_bytes, MEBIBYTE):
        number = offset // MEBIBYTE % len(blocks)
        data = blocks[number] if offset else first
        crc = crcs[number] if offset else google_crc32c.value(first)
        hasher.update(data)
        chunk = UploadChunk(offset=offset, data=data, crc32c=crc)
        messages.append(UploadRequest(chunk=chunk).SerializeToString())
    return messages, f"sha256:{hasher.hexdigest()}"


async def client(address: str, uploads: int, size_bytes: int, seed: int) -> None:
    """Sends all at once, each on a connection of its own; prints its seconds and its CPU seconds."""
    tune_allocator()
    blocks = [os.urandom(MEBIBYTE) for _ in range(_DISTINCT)]
    channels = [
        grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(uploads)
    ]
    calls = []
    for number, channel in enumerate(channels):
        # Made from the same few blocks, told apart by the first.
        messages, sha256 = prepared("model", size_bytes, seed + number, blocks)
        request = create_request(size_bytes, f"model-{seed}-{number}", sha256=sha256)
        ingest = await ingest_stub(channel).CreateIngest(request)
        start = UploadRequest(start=UploadStart(file=ingest.files[0].name)).SerializeToString()
        finish = UploadRequest(finish=UploadFinish()).SerializeToString()
        calls.append((channel, [start, *messages, finish]))

    async def send(channel: grpc.aio.Channel, messages: list[bytes]) -> float:
        call: Any = channel.stream_unary(_UPLOAD, None, File.FromString)()
        for message in messages:
            await call.write(message)
        await call.done_writing()
        file = await call
        while file.state in {File.STATE_VERIFYING, File.STATE_PUBLISHING}:
            # `finish` does not wait for ever; many that end at once take longer.
            await asyncio.sleep(0.1)
            ingest = GetIngestRequest(name=file.name.partition("/files/")[0])
            file = (await ingest_stub(channel).GetIngest(ingest)).files[0]
        if file.state != File.STATE_STORED:
            raise SystemExit(f"not stored: {file}")
        return time.perf_counter() - began

    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    cpu, began = time.process_time(), time.perf_counter()
    ends = await asyncio.gather(*(send(*call) for call in calls))
    print(json.dumps({"seconds": max(ends), "cpu_seconds": time.process_time() - cpu}), flush=True)


class Measured:
    """One variant's server, which takes one run after the other."""

    def __init__(self, variant: Variant, directory: Path) -> None:
        self.name = variant.name
        self._directory = directory / variant.name
        self._directory.mkdir()
        variables = environment(self._directory / "data", "", free_floor_bytes=0) | variant.settings
        del variables["INGEST_DATABASE_URL"]
        self.server = Server(variables, self._directory / "log", variant.tree)
        self._runs = 0

    async def upload(self, uploads: int, size_bytes: int, perf: Path | None) -> dict[str, float]:
        """`size_bytes` in all from so many uploads at once."""
        assert self.server.process is not None
        pid = self.server.process.pid
        if not self._runs:
            # So much is in memory in the first upload already: imports, pools, prepared statements.
            await one_client(self.server.address, 1, 8 * MEBIBYTE, 0, pid)
        self._runs += 1
        each = size_bytes // uploads // MEBIBYTE * MEBIBYTE
        answer = await one_client(self.server.address, uploads, each, self._runs * 1000, pid, perf)
        total = each * uploads
        blobs = list((self._directory / "data" / "blobs").iterdir())
        in_cache = sum(resident_bytes(blob) for blob in blobs)
        for blob in blobs:
            # The server does not look, and the disk is not ours alone.
            os.truncate(blob, 1)
        return {
            "bytes_per_second": total / answer["seconds"],
            "server_cpu_seconds_per_gb": answer["server_cpu_seconds"] / total * 1e9,
            "client_cpu_seconds_per_gb": answer["cpu_seconds"] / total * 1e9,
            "rss_mib_per_upload": answer["rss_mib"] / uploads,
            "page_cache_share": in_cache / total,
        }


async def one_client(
    address: str, uploads: int, size_bytes: int, seed: int, server_pid: int, perf: Path | None = None
) -> dict[str, float]:
    """What the client process measured, and what its sending cost the server; `perf`: where perf writes what
    the server did meanwhile."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.pipeline", "--client",
        address, str(uploads), str(size_bytes), str(seed),
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    assert await child.stdout.readline() == b"ready\n"
    recorder = None
    if perf is not None:
        recorder = await asyncio.create_subprocess_exec(
            "perf", "record", "-q", "-F", "499", "-g", "-o", str(perf), "-p", str(server_pid)
        )
        await asyncio.sleep(1)
    memory = Memory(server_pid)
    cpu = memory.cpu_seconds()
    child.stdin.write(b"\n")
    await child.stdin.drain()
    answer: dict[str, float] = json.loads(await child.stdout.readline())
    answer["server_cpu_seconds"] = memory.cpu_seconds() - cpu
    memory.stop()
    answer["rss_mib"] = (memory.peak_bytes - memory.start_bytes) / MEBIBYTE
    if recorder is not None:
        recorder.send_signal(signal.SIGINT)
        await recorder.wait()
    await child.wait()
    return answer


def summary(values: list[float]) -> list[float]:
    """Median, lowest, highest."""
    return [round(one, 3) for one in (statistics.median(values), min(values), max(values))]


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    blocks = [os.urandom(MEBIBYTE) for _ in range(_DISTINCT)]
    counts = [int(one) for one in arguments.uploads.split(",")]
    variants = [Variant.parse(text) for text in arguments.variant or ["here="]]
    sha: list[float] = []
    sha_cpu: list[float] = []
    raw: list[float] = []
    loads: list[float] = []
    taken: dict[str, list[dict[str, float]]] = {}
    async with contextlib.AsyncExitStack() as stack:
        name = tempfile.TemporaryDirectory(prefix="model-ingest-bench-", dir=arguments.directory)
        directory = Path(stack.enter_context(name))
        measured = [Measured(variant, directory) for variant in variants]
        for one in measured:
            await stack.enter_async_context(one.server)
        began = time.monotonic()
        for _ in range(arguments.rounds):
            if sha and time.monotonic() - began > arguments.seconds:
                break
            seconds, cpu_seconds = sha256_seconds(blocks, arguments.size_bytes)
            sha.append(arguments.size_bytes / seconds)
            sha_cpu.append(cpu_seconds / arguments.size_bytes * 1e9)
            raw.append(arguments.size_bytes / raw_seconds(blocks, arguments.size_bytes, directory))
            for count in counts:
                for one in measured:
                    figures = await one.upload(count, arguments.size_bytes, arguments.perf)
                    figures["ratio_to_sha256"] = figures["bytes_per_second"] / sha[-1]
                    figures["server_cpu_in_sha256s"] = figures["server_cpu_seconds_per_gb"] / sha_cpu[-1]
                    figures["ratio_to_raw"] = figures["bytes_per_second"] / raw[-1]
                    taken.setdefault(f"{one.name} x{count}", []).append(figures)
            loads.append(os.getloadavg()[0])
    return {
        "size_bytes": arguments.size_bytes,
        "load": summary(loads),
        "sha256_bytes_per_second": summary(sha),
        "sha256_cpu_seconds_per_gb": summary(sha_cpu),
        "raw_write_fdatasync_bytes_per_second": summary(raw),
        **{
            what: {name: summary([figures[name] for figures in rounds]) for name in rounds[0]}
            for what, rounds in taken.items()
        },
    }


def main() -> int:
    if sys.argv[1:2] == ["--client"]:
        address, *numbers = sys.argv[2:]
        asyncio.run(client(address, *(int(number) for number in numbers)))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size-bytes", type=int, default=1024 * MEBIBYTE)
    parser.add_argument("--uploads", default="1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3600.0, help="no new round after so long")
    parser.add_argument("--directory", default=None)
    parser.add_argument("--variant", action="append")
    parser.add_argument(
        "--perf", type=Path, help="record the server with perf into this file (the last round)"
    )
    print(json.dumps(asyncio.run(measure(parser.parse_args())), indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
