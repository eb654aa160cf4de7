"""How fast the service is there again, and what a crowd of slow uploads costs.

    .venv/bin/python -m benchmarks.resilience [--uploads N] [--size-bytes N] [--seconds N] [--directory DIR]

Real server processes, SQLite and PostgreSQL (with its fsync off, as in the tests). A table on stdout:
resident memory while N slow uploads are open; seconds to SERVING after a `kill -9` that left them unfinished,
and after an orderly stop; and how soon an upload with `--size-bytes` committed takes bytes again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import (
    GetIngestRequest,
    UploadChunk,
    UploadFinish,
    UploadRequest,
    UploadStart,
)

from benchmarks.main_path import MEBIBYTE, Memory
from benchmarks.slow_uploads import SlowUploads, committed_in_all
from ingest_service.database import Database
from ingest_service.database.migrate import migrate
from tests.faults.children import Child
from tests.support.files import create_request
from tests.support.models import beginning
from tests.support.postgres import PostgresCluster
from tests.support.stubs import ingest_stub

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
STORED = resources_pb2.File.STATE_STORED


class Table:
    """Rows are printed as they come: a run takes minutes."""

    def __init__(self) -> None:
        print(f"{'database':<12} {'what':<72} value", flush=True)

    def row(self, database: str, what: str, value: str) -> None:
        print(f"{database:<12} {what:<72} {value}", flush=True)


async def seconds_to_serving(child: Child) -> float:
    """From the start of the process until Health says SERVING."""
    began = time.perf_counter()
    process = await child.spawn()
    while not await child._is_serving():
        if process.returncode is not None:
            raise SystemExit(f"the service ended: {child.log.read_text()[-2000:]}")
        await asyncio.sleep(0.01)
    return time.perf_counter() - began


async def crowd(table: Table, name: str, child: Child, arguments: argparse.Namespace) -> None:
    """(a) and (c): many slow uploads, a kill, and two boots."""
    empty = await seconds_to_serving(child)
    assert child.process is not None
    memory = Memory(child.process.pid)
    resting = memory.start_bytes
    async with SlowUploads(child.address, arguments.uploads) as uploads:
        await uploads.open_all()
        async with asyncio.timeout(600):
            while not await committed_in_all(child.address, arguments.uploads):
                await asyncio.sleep(1)
        await asyncio.sleep(arguments.seconds)
        ends, alive, sent = await uploads.ends(), uploads.alive, uploads.sent_bytes
        resident = psutil.Process(child.process.pid).memory_info().rss
        memory.stop()
        died = time.perf_counter()
        await child.kill()
    table.row(name, "RSS at rest", f"{resting / MEBIBYTE:.0f} MiB")
    table.row(name, f"RSS with {alive} slow uploads open", f"{resident / MEBIBYTE:.0f} MiB")
    table.row(name, "  its peak", f"{memory.peak_bytes / MEBIBYTE:.0f} MiB")
    table.row(
        name, f"  sent by them in {arguments.seconds:.0f} s and the opening", f"{sent / MEBIBYTE:.0f} MiB"
    )
    for end, times in ends.items():
        table.row(name, f"  ENDED EARLY: {end}"[:72], str(times))
    table.row(name, "process start to SERVING, an empty store", f"{empty:.2f} s")
    boot = await seconds_to_serving(child)
    table.row(name, f"process start to SERVING after kill -9, {alive} unfinished", f"{boot:.2f} s")
    table.row(
        name, "  since the kill (the dead clients' clean-up is in it)", f"{time.perf_counter() - died:.2f} s"
    )
    assert await committed_in_all(child.address, arguments.uploads), "committed bytes were lost"
    await child.kill(15)
    boot = await seconds_to_serving(child)
    table.row(name, f"process start to SERVING after SIGTERM, {alive} unfinished", f"{boot:.2f} s")
    await child.kill()


def chunk(offset: int, data: bytes) -> UploadRequest:
    return UploadRequest(chunk=UploadChunk(offset=offset, data=data))


async def committed_of(address: str, ingest: str) -> int:
    async with grpc.aio.insecure_channel(address, options=OWN_CONNECTION) as channel:
        answer = await ingest_stub(channel).GetIngest(GetIngestRequest(name=ingest), timeout=30)
        return answer.files[0].committed_size


async def fill(child: Child, ingest: Any, size_bytes: int) -> None:
    """An upload with `size_bytes` committed, cut off by a kill."""
    data = os.urandom(MEBIBYTE)
    async with grpc.aio.insecure_channel(child.address, options=OWN_CONNECTION) as channel:
        call = ingest_stub(channel).Upload()
        await call.write(UploadRequest(start=UploadStart(file=ingest.files[0].name)))
        head = beginning(ingest.files[0].size_bytes, 1000)
        await call.write(chunk(0, head + data[len(head) :]))
        for offset in range(MEBIBYTE, size_bytes, MEBIBYTE):
            await call.write(chunk(offset, data[: size_bytes - offset]))
        async with asyncio.timeout(600):
            while await committed_of(child.address, ingest.name) < size_bytes:
                await asyncio.sleep(0.1)
        await child.kill()
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call


async def reconnect(table: Table, name: str, child: Child, size_bytes: int) -> None:
    """(b): the hasher of a fresh process is `size_bytes` behind; new bytes must not wait for it."""
    await child.start()
    tail = os.urandom(256 * MEBIBYTE)
    async with grpc.aio.insecure_channel(child.address, options=OWN_CONNECTION) as channel:
        request = create_request(size_bytes + len(tail), "large", request_id=str(uuid.uuid4()))
        ingest = await ingest_stub(channel).CreateIngest(request)
    await fill(child, ingest, size_bytes)
    gib = f"{size_bytes / 1024 / MEBIBYTE:g} GiB committed"
    for number in range(3):
        boot = await seconds_to_serving(child)
        table.row(name, f"process start to SERVING, one more with {gib}", f"{boot:.2f} s")
        began = time.perf_counter()
        async with grpc.aio.insecure_channel(child.address, options=OWN_CONNECTION) as channel:
            stub = ingest_stub(channel)
            file = (await stub.GetIngest(GetIngestRequest(name=ingest.name))).files[0]
            at = file.committed_size
            call = stub.Upload()
            await call.write(UploadRequest(start=UploadStart(file=file.name)))
            await call.write(chunk(at, tail[at - size_bytes :][:MEBIBYTE]))
            await call.done_writing()
            answer = await call
            seconds = time.perf_counter() - began
            assert answer.committed_size == at + MEBIBYTE, answer
            table.row(
                name, f"new channel to 1 MiB more durable and answered ({number + 1})", f"{seconds:.2f} s"
            )
        await child.kill()
    await child.start()
    await rest(table, name, child, ingest, tail, size_bytes)
    await child.kill()


async def rest(table: Table, name: str, child: Child, ingest: Any, tail: bytes, size_bytes: int) -> None:
    """The rest in one stream: when its first checkpoint is told, and how long the digest takes to follow."""
    began = time.perf_counter()
    async with grpc.aio.insecure_channel(child.address, options=OWN_CONNECTION) as channel:
        stub = ingest_stub(channel)
        at = (await stub.GetIngest(GetIngestRequest(name=ingest.name))).files[0].committed_size
        call = stub.Upload()
        await call.write(UploadRequest(start=UploadStart(file=ingest.files[0].name)))

        async def first_checkpoint() -> float:
            while await committed_of(child.address, ingest.name) == at:
                await asyncio.sleep(0.01)
            return time.perf_counter() - began

        growing = asyncio.create_task(first_checkpoint())
        for offset in range(at, size_bytes + len(tail), MEBIBYTE):
            start = offset - size_bytes
            await call.write(chunk(offset, tail[start : start + MEBIBYTE]))
        sent = time.perf_counter() - began
        # No digest: this measures; what is proved about digests is proved in the tests.
        await call.write(UploadRequest(finish=UploadFinish()))
        await call.done_writing()
        table.row(name, "new channel to the first checkpoint told, full speed", f"{await growing:.2f} s")
        table.row(name, f"new channel to the last of {len(tail) // MEBIBYTE} MiB sent", f"{sent:.2f} s")
        state = (await call).state
        while state != STORED:
            await asyncio.sleep(0.1)
            state = (await stub.GetIngest(GetIngestRequest(name=ingest.name))).files[0].state
        table.row(name, "new channel to STORED (the digest followed)", f"{time.perf_counter() - began:.2f} s")


@contextlib.contextmanager
def cluster() -> Iterator[PostgresCluster]:
    with tempfile.TemporaryDirectory(prefix="model-ingest-bench-postgres-") as directory:
        made = PostgresCluster(Path(directory))
        made.start()
        try:
            yield made
        finally:
            made.stop("immediate")


@contextlib.asynccontextmanager
async def databases(directory: Path, kinds: list[str]) -> AsyncIterator[dict[str, str]]:
    """A URL for each kind; "" is SQLite in the data directory."""
    with contextlib.ExitStack() as stack:
        urls = {}
        if "sqlite" in kinds:
            urls["sqlite"] = f"sqlite+aiosqlite:///{directory / 'ingest.db'}"
        if "postgresql" in kinds:
            urls["postgresql"] = stack.enter_context(cluster()).create_database("bench")
            opened = Database(urls["postgresql"])
            await migrate(opened)
            await opened.close()
        yield urls


async def measure(arguments: argparse.Namespace) -> None:
    table = Table()
    with tempfile.TemporaryDirectory(prefix="model-ingest-bench-", dir=arguments.directory) as name:
        directory = Path(name)
        async with databases(directory, arguments.databases.split(",")) as urls:
            for kind, url in urls.items():
                variables = SlowUploads.environment(directory / kind, url, arguments.uploads)
                child = Child(variables, directory / f"{kind}.log")
                try:
                    await crowd(table, kind, child, arguments)
                    if arguments.size_bytes:
                        await reconnect(table, kind, child, arguments.size_bytes)
                finally:
                    await child.kill()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uploads", type=int, default=1000)
    parser.add_argument("--size-bytes", type=int, default=4 * 1024 * MEBIBYTE, help="0: leave that out")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the slow uploads go on")
    parser.add_argument("--databases", default="sqlite,postgresql")
    parser.add_argument("--directory", default=None)
    asyncio.run(measure(parser.parse_args()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
