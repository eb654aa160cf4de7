"""`serve --workers` 1 and 2 with 4 and 16 clients: bytes a second, processor time, unary latency meanwhile.

    .venv/bin/python -m benchmarks.workers [--rounds N] [--total-bytes N] [--directory DIR]

Each round runs every combination once, in turns, on a server with an empty store. The clients upload random
models of TOTAL / clients bytes each, with declared digests, in two processes, a connection for each client.
One JSON object on stdout: medians, and the ratio of 2 workers to 1 as the median of each round's own.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import psutil
from model_ingest._wire import chunk_message, serialised
from model_ingest.v1.ingest_service_pb2 import (
    CreateIngestRequest,
    FileSpec,
    GetCapabilitiesRequest,
    UploadFinish,
    UploadRequest,
    UploadStart,
)
from model_ingest.v1.resources_pb2 import File

from tests.faults.children import Child
from tests.support.models import beginning
from tests.support.service import ROOT, environment
from tests.support.stubs import ingest_stub

MEBIBYTE = 1024 * 1024
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
_PROCESSES = 2


async def one_client(address: str, seed: int, size_bytes: int, rest: bytes, go: asyncio.Event) -> None:
    """One upload over a connection of its own."""
    first = beginning(size_bytes, MEBIBYTE, seed)
    chunks = [first, *([rest] * (size_bytes // MEBIBYTE - 1))]
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    name = f"sha256:{digest.hexdigest()}"
    async with grpc.aio.insecure_channel(address, options=OWN_CONNECTION) as channel:
        spec = FileSpec(file_name="model.gguf", size_bytes=size_bytes, sha256=name)
        ingest = await ingest_stub(channel).CreateIngest(
            CreateIngestRequest(model=f"m{seed}", files=[spec], store_only=True), wait_for_ready=True
        )
        await go.wait()
        upload = channel.stream_unary(
            "/model_ingest.v1.IngestService/Upload",
            request_serializer=serialised,
            response_deserializer=File.FromString,
        )
        call = upload()
        await call.write(UploadRequest(start=UploadStart(file=ingest.files[0].name)))
        for number, chunk in enumerate(chunks):
            await call.write(chunk_message(number * MEBIBYTE, chunk, _CRCS[chunk]))
        await call.write(UploadRequest(finish=UploadFinish(sha256=name)))
        await call.done_writing()
        file = await call
        assert file.state in {File.STATE_STORED, File.STATE_VERIFYING}, file


class _Crcs(dict[bytes, int]):
    """Computed once for each chunk: the clients are not what is measured."""

    def __missing__(self, chunk: bytes) -> int:
        import google_crc32c

        self[chunk] = int(google_crc32c.value(chunk))
        return self[chunk]


_CRCS = _Crcs()


async def clients(address: str, first: int, count: int, size_bytes: int) -> None:
    """A client process: says `ready`, waits for a line, uploads."""
    from ingest_service.process import tune_allocator

    tune_allocator()
    rest = random.Random(0).randbytes(MEBIBYTE)
    go = asyncio.Event()
    running = [
        asyncio.create_task(one_client(address, first + number, size_bytes, rest, go))
        for number in range(count)
    ]
    await asyncio.sleep(0.1)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    go.set()
    await asyncio.gather(*running)


async def latencies(address: str, until: asyncio.Event) -> list[float]:
    """A unary call every 10 ms, over 4 connections; milliseconds each."""
    channels = [grpc.aio.insecure_channel(address, options=OWN_CONNECTION) for _ in range(4)]
    taken = []
    while not until.is_set():
        for channel in channels:
            started = time.perf_counter()
            await ingest_stub(channel).GetCapabilities(GetCapabilitiesRequest(), wait_for_ready=True)
            taken.append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(0.01)
    for channel in channels:
        await channel.close()
    return taken


def cpu_of(pid: int) -> float:
    """Of the parent and its workers that run now."""
    parent = psutil.Process(pid)
    return float(sum(sum(one.cpu_times()[:2]) for one in [parent, *parent.children(recursive=True)]))


async def measured(workers: int, count: int, total_bytes: int, directory: Path | None) -> dict[str, float]:
    """One run on a server of its own."""
    size_bytes = total_bytes // count // MEBIBYTE * MEBIBYTE
    with tempfile.TemporaryDirectory(prefix="model-ingest-bench-", dir=directory) as name:
        here = Path(name)
        server = Child(
            environment(here / "data", ""), here / "log",
            "-m", "ingest_service", "serve", "--workers", str(workers),
        )  # fmt: skip
        try:
            # Far more than it takes, but on a machine that does much else.
            await server.start(timeout_seconds=120)
            while "message=serving " not in server.log.read_text():
                await asyncio.sleep(0.05)
            assert server.process is not None
            each = count // _PROCESSES
            children = [
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "benchmarks.workers", "--clients", server.address,
                    str(number * each), str(each), str(size_bytes),
                    cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                )
                for number in range(_PROCESSES)
            ]  # fmt: skip
            for child in children:
                assert child.stdout is not None
                await child.stdout.readline()
            # Their digests are computed by now.
            await asyncio.sleep(2)
            ended = asyncio.Event()
            asking = asyncio.create_task(latencies(server.address, ended))
            cpu, started = cpu_of(server.process.pid), time.perf_counter()
            for child in children:
                assert child.stdin is not None
                child.stdin.write(b"go\n")
            codes = [await child.wait() for child in children]
            seconds, cpu = time.perf_counter() - started, cpu_of(server.process.pid) - cpu
            ended.set()
            cuts = statistics.quantiles(await asking, n=100)
            if any(codes):
                raise SystemExit(f"clients ended with {codes}: {server.log.read_text()[-2000:]}")
            sent = size_bytes * each * _PROCESSES
            return {
                "mb_per_second": sent / seconds / 1e6,
                "server_cpu_seconds_per_gb": cpu / sent * 1e9,
                "unary_p50_ms": cuts[49],
                "unary_p99_ms": cuts[98],
            }
        finally:
            await server.kill()


async def rounds(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[tuple[int, int], list[dict[str, float]]] = {}
    loads = []
    for _ in range(options.rounds):
        for count in (4, 16):
            for workers in (1, 2):
                loads.append(os.getloadavg()[0])
                run = await measured(workers, count, options.total_bytes, options.directory)
                found.setdefault((workers, count), []).append(run)
                print(f"{workers} workers, {count} clients: {run}", file=sys.stderr, flush=True)
    table: dict[str, Any] = {
        f"{workers} workers, {count} clients": {
            key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]
        }
        for (workers, count), runs in sorted(found.items())
    }
    for count in (4, 16):
        pairs = zip(found[1, count], found[2, count], strict=True)
        table[f"rate of 2 workers to that of 1, {count} clients"] = [
            round(two["mb_per_second"] / one["mb_per_second"], 2) for one, two in pairs
        ]
    return {"total_bytes": options.total_bytes, "load_average": [round(x, 1) for x in loads], "table": table}


def main() -> int:
    if sys.argv[1:2] == ["--clients"]:
        address, *numbers = sys.argv[2:]
        asyncio.run(clients(address, *map(int, numbers)))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--total-bytes", type=int, default=1024 * MEBIBYTE)
    parser.add_argument("--directory", type=Path, default=None)
    print(json.dumps(asyncio.run(rounds(parser.parse_args())), indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
