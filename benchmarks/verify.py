"""The figures of VerifyModel: how fast it reads against one core's sha256, and what it does to others.

    .venv/bin/python -m benchmarks.verify [--size-bytes N] [--directory DIR]

Real server process, real client. The same bytes are hashed by this process (from memory, one core) right
before and after each verify, GetIngest is asked every 10 ms without a verify and while one runs. One JSON
object on stdout. Read `load_average` too: on a machine with other work a reading at the lowest priority
gets what is left over.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
from model_ingest.v1.catalog_service_pb2 import VerifyModelRequest
from model_ingest.v1.ingest_service_pb2 import ListIngestsRequest

from benchmarks.main_path import MEBIBYTE, Memory, latencies, percentiles, push
from tests.support.files import gguf
from tests.support.models import model
from tests.support.service import ServiceProcess, environment
from tests.support.stubs import CatalogStub, catalog_stub, ingest_stub


def sha256_bytes_per_second(size_bytes: int = 256 * MEBIBYTE) -> float:
    """One core, from memory, in pieces of the size that the service reads."""
    piece = os.urandom(4 * MEBIBYTE)
    hasher = hashlib.sha256()
    started = time.perf_counter()
    for _ in range(size_bytes // len(piece)):
        hasher.update(piece)
    return size_bytes / (time.perf_counter() - started)


async def verify(stub: CatalogStub) -> float:
    """Seconds."""
    started = time.perf_counter()
    messages = 0
    async for _ in stub.VerifyModel(VerifyModelRequest(name="models/large"), timeout=3600):
        messages += 1
    assert messages
    return time.perf_counter() - started


def large_gguf(path: Path, size_bytes: int) -> None:
    """A model of that size, its tensor's bytes of one random piece again and again."""
    small = model(2 * MEBIBYTE)
    # The header says how long the tensor is: made for the whole size, cut where the data begin.
    head = _head(size_bytes)
    with path.open("wb") as file:
        file.write(head)
        while file.tell() < size_bytes:
            file.write(small[: min(len(small), size_bytes - file.tell())])


def _head(size_bytes: int) -> bytes:
    from tests.support import models

    pairs = b"".join(models._pair(key, value) for key, value in models.MODEL.items())
    count = len(models.MODEL)
    length = len(models._head(pairs, count, ("w",), 1))
    return models._head(pairs, count, ("w",), size_bytes - length)


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    size_bytes = arguments.size_bytes
    with tempfile.TemporaryDirectory(prefix="model-ingest-bench-", dir=arguments.directory) as name:
        directory = Path(name)
        large, small = directory / "large.gguf", directory / "small.gguf"
        large_gguf(large, size_bytes)
        small.write_bytes(gguf())
        async with ServiceProcess(environment(directory / "data", ""), directory / "log") as process:
            assert process.process is not None
            await push(small, process.address, "small")
            await push(large, process.address, "large")
            async with grpc.aio.insecure_channel(process.address) as channel:
                return await _measured(channel, Memory(process.process.pid), size_bytes)


async def _measured(channel: grpc.aio.Channel, memory: Memory, size_bytes: int) -> dict[str, Any]:
    ingests, catalog = ingest_stub(channel), catalog_stub(channel)
    known = (await ingests.ListIngests(ListIngestsRequest())).ingests[0].name
    # Undisturbed: nobody asks beside it.
    rates = [sha256_bytes_per_second()]
    alone_seconds = await verify(catalog)
    rates.append(sha256_bytes_per_second())
    quiet = asyncio.Event()
    asyncio.get_running_loop().call_later(max(5.0, alone_seconds), quiet.set)
    idle = await latencies(ingests, known, quiet)
    memory.start_bytes = memory.peak_bytes
    done = asyncio.Event()
    asking = asyncio.create_task(latencies(ingests, known, done))
    beside_seconds = await verify(catalog)
    done.set()
    loaded = await asking
    memory.stop()
    sha256 = sum(rates) / len(rates)
    return {
        "size_bytes": size_bytes,
        "load_average": os.getloadavg()[0],
        "sha256_bytes_per_second": [round(rate) for rate in rates],
        "verify_bytes_per_second": round(size_bytes / alone_seconds),
        "verify_share_of_one_core": round(size_bytes / alone_seconds / sha256, 3),
        "verify_bytes_per_second_while_asked": round(size_bytes / beside_seconds),
        "server_rss_growth_mib": round((memory.peak_bytes - memory.start_bytes) / MEBIBYTE, 1),
        "get_ingest_idle": percentiles(idle),
        "get_ingest_while_verifying": percentiles(loaded),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-bytes", type=int, default=4 * 1024 * MEBIBYTE)
    parser.add_argument("--directory", default=None)
    print(json.dumps(asyncio.run(measure(parser.parse_args())), indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
