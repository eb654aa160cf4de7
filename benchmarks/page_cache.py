"""What an ingest leaves of another file in the page cache: a model that runs must not be pushed out.

    .venv/bin/python -m benchmarks.page_cache [--size-bytes N] [--other-bytes N] [--directory DIR]

Another file is read until all of it is in memory; then a model of `--size-bytes` is uploaded by a bare stub
that makes its bytes as it goes, so that only the service touches files. With direct writes, without, and, for
comparison, a plain write and fdatasync of as many bytes. Only more bytes than the machine has memory say
anything. One JSON object on stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
from model_ingest._wire import chunk_message, serialised
from model_ingest.v1.ingest_service_pb2 import UploadFinish, UploadRequest, UploadStart
from model_ingest.v1.resources_pb2 import File

from tests.storage.resident import resident_bytes
from tests.support.files import create_request
from tests.support.models import beginning
from tests.support.service import ServiceProcess, environment
from tests.support.stubs import ingest_stub

MEBIBYTE = 1024 * 1024


async def upload(address: str, size_bytes: int) -> None:
    """One model, its chunks made of one random MiB; waits until it is stored."""
    rest = os.urandom(MEBIBYTE)
    rest_crc32c = int(google_crc32c.value(rest))
    digest = hashlib.sha256()
    async with grpc.aio.insecure_channel(address) as channel:
        ingest = await ingest_stub(channel).CreateIngest(create_request(size_bytes, "large"))
        method = channel.stream_unary(
            "/model_ingest.v1.IngestService/Upload",
            request_serializer=serialised,
            response_deserializer=File.FromString,
        )
        call = method()
        await call.write(UploadRequest(start=UploadStart(file=ingest.files[0].name)))
        for offset in range(0, size_bytes, MEBIBYTE):
            data = rest if offset else beginning(size_bytes, MEBIBYTE)
            await asyncio.to_thread(digest.update, data)
            crc32c = rest_crc32c if offset else int(google_crc32c.value(data))
            await call.write(chunk_message(offset, data, crc32c))
        await call.write(UploadRequest(finish=UploadFinish(sha256=f"sha256:{digest.hexdigest()}")))
        await call.done_writing()
        file = await call
        assert file.state == File.STATE_STORED, file


async def by_the_service(directory: Path, size_bytes: int, direct_io: str) -> None:
    directory.mkdir()
    process = ServiceProcess(environment(directory / "data", "", direct_io=direct_io), directory / "log")
    del process._variables["INGEST_DATABASE_URL"]
    async with process:
        await upload(process.address, size_bytes)
    for blob in (directory / "data" / "blobs").iterdir():
        blob.unlink()


def by_plain_writes(directory: Path, size_bytes: int) -> None:
    directory.mkdir()
    data = os.urandom(MEBIBYTE)
    with (directory / "file").open("wb", buffering=0) as file:
        for _ in range(0, size_bytes, MEBIBYTE):
            file.write(data)
        os.fdatasync(file.fileno())
    (directory / "file").unlink()


def measured(other: Path, work: Callable[[], None]) -> dict[str, Any]:
    """The share of the other file that is in memory before and after, and what the work took."""
    with other.open("rb", buffering=0) as file:
        while file.read(8 * MEBIBYTE):
            pass
    size_bytes = other.stat().st_size
    before, began = resident_bytes(other) / size_bytes, time.perf_counter()
    work()
    return {
        "before": round(before, 3),
        "after": round(resident_bytes(other) / size_bytes, 3),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size-bytes", type=int, default=40 * 1024 * MEBIBYTE)
    parser.add_argument("--other-bytes", type=int, default=4 * 1024 * MEBIBYTE)
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    size_bytes = options.size_bytes
    ways: dict[str, Callable[[Path], None]] = {
        "direct": lambda at: asyncio.run(by_the_service(at, size_bytes, "auto")),
        "INGEST_DIRECT_IO=off": lambda at: asyncio.run(by_the_service(at, size_bytes, "off")),
        "plain writes": lambda at: by_plain_writes(at, size_bytes),
    }
    with tempfile.TemporaryDirectory(prefix="model-ingest-bench-", dir=options.directory) as name:
        other = Path(name) / "other"
        with other.open("wb") as file:
            for _ in range(0, options.other_bytes, MEBIBYTE):
                file.write(os.urandom(MEBIBYTE))
            os.fdatasync(file.fileno())
        told = {
            what: measured(other, lambda way=way, at=Path(name) / str(number): way(at))  # type: ignore[misc]
            for number, (what, way) in enumerate(ways.items())
        }
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    print(json.dumps({"size_bytes": size_bytes, "memory_bytes": memory, "resident_share": told}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
