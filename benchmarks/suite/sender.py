"""`python -m benchmarks.suite.sender`: one process that sends files; one JSON line tells what it took.

`real` is the client library, which hashes what it reads; `known` the same with a digest that it remembers
from an earlier push, so that it does not hash. `thin` is the bare stub with crc32c and a digest that it was
given: what a client costs at the least. The clock runs from the first call until the bytes are durable and
stored.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
from model_ingest import AsyncClient
from model_ingest._digests import DigestCache
from model_ingest._source import Fingerprint
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import (
    GetIngestRequest,
    UploadChunk,
    UploadFinish,
    UploadRequest,
    UploadStart,
)

from ingest_service.process import tune_allocator
from tests.support.files import create_request
from tests.support.stubs import ingest_stub

_CHUNK_BYTES = 1024 * 1024


async def thin(address: str, path: Path, name: str, sha256: str) -> None:
    """One Upload call."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    size_bytes = path.stat().st_size
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stub = ingest_stub(channel)
        ingest = await stub.CreateIngest(create_request(size_bytes, name, sha256=sha256), timeout=60)
        call = stub.Upload()
        await call.write(UploadRequest(start=UploadStart(file=ingest.files[0].name)))
        with path.open("rb", buffering=0) as file:
            offset = 0
            reading = asyncio.ensure_future(asyncio.to_thread(file.read, _CHUNK_BYTES))
            while data := await reading:
                reading = asyncio.ensure_future(asyncio.to_thread(file.read, _CHUNK_BYTES))
                crc32c = google_crc32c.value(data)
                await call.write(UploadRequest(chunk=UploadChunk(offset=offset, data=data, crc32c=crc32c)))
                offset += len(data)
        await call.write(UploadRequest(finish=UploadFinish(sha256=sha256)))
        await call.done_writing()
        state = (await call).state
        while state != resources_pb2.File.STATE_STORED:
            # `finish` answers after 20 s at the latest, with what there is.
            await asyncio.sleep(0.05)
            state = (await stub.GetIngest(GetIngestRequest(name=ingest.name))).files[0].state


async def real(address: str, path: Path, name: str, sha256: str) -> None:
    """The client library; `sha256` stays unused: it finds it out, or remembers it."""
    async with AsyncClient(address) as client:
        await client.push(path, name=name, store_only=True)


def remember(files: list[tuple[str, str]]) -> None:
    """As if each had been pushed before, to a service that has lost it since."""
    an_hour_ago = time.time() - 3600
    for name, sha256 in files:
        path = Path(name)
        os.utime(path, (an_hour_ago, an_hour_ago))
        DigestCache().keep(path, Fingerprint.of(path.stat()), sha256, time.time_ns())


async def send_all(how: Any, address: str, files: list[tuple[str, str]], name: str) -> dict[str, float]:
    started = time.perf_counter()
    await asyncio.gather(
        *(how(address, Path(path), f"{name}-{number}", sha256) for number, (path, sha256) in enumerate(files))
    )
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("how", choices=["thin", "real", "known"])
    parser.add_argument("address")
    parser.add_argument("name")
    arguments = parser.parse_args()
    tune_allocator()
    files = json.load(sys.stdin)
    how = thin if arguments.how == "thin" else real
    with tempfile.TemporaryDirectory() as state:
        # What a client remembers here is nobody else's.
        os.environ["XDG_STATE_HOME"] = state
        if arguments.how == "known":
            remember(files)
        # Of this process's CPU time only what the sending took, not its imports.
        before = time.process_time()
        taken = asyncio.run(send_all(how, arguments.address, files, arguments.name))
    print(json.dumps({"seconds": taken["seconds"], "cpu_seconds": taken["cpu_seconds"] - before}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
