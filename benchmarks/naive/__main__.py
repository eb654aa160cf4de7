"""`python -m benchmarks.naive DIRECTORY HOST:PORT`: what one writes first, and what then freezes the loop.

A grpc.aio server with the same protos whose coroutines write, hash, sync and ask the database themselves. It
does the least of the work: no checks, no resume, no formats, one sync and one commit for each upload. On
SIGTERM it prints the lag of its loop as one JSON line.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import CreateIngestRequest, GetIngestRequest, UploadRequest
from model_ingest.v1.ingest_service_pb2_grpc import IngestServiceServicer, add_IngestServiceServicer_to_server

from ingest_service.process import tune_allocator
from ingest_service.telemetry.loop_monitor import LoopMonitor

#: To the type checker it is abstract; in fact what is not there answers UNIMPLEMENTED.
_Base: Any = IngestServiceServicer


class Naive(_Base):  # type: ignore[misc]
    """CreateIngest, Upload and GetIngest."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._database = sqlite3.connect(directory / "naive.db", isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute("CREATE TABLE ingest (name TEXT PRIMARY KEY, size INT, sha256 TEXT)")

    async def CreateIngest(self, request: CreateIngestRequest, context: Any) -> resources_pb2.Ingest:  # noqa: N802
        name = f"ingests/{os.urandom(12).hex()}"
        self._database.execute("INSERT INTO ingest VALUES (?, ?, '')", (name, request.files[0].size_bytes))
        return self._ingest(name)

    async def GetIngest(self, request: GetIngestRequest, context: Any) -> resources_pb2.Ingest:  # noqa: N802
        return self._ingest(request.name)

    async def Upload(self, messages: AsyncIterator[UploadRequest], context: Any) -> resources_pb2.File:  # noqa: N802
        digest = hashlib.sha256()
        name, file = "", None
        async for message in messages:
            kind = message.WhichOneof("message")
            if kind == "start":
                name = message.start.file
                file = (self._directory / name.replace("/", "-")).open("wb")
            elif kind == "chunk" and file is not None:
                data = message.chunk.data
                file.write(data)
                digest.update(data)
            elif file is not None:
                file.flush()
                os.fdatasync(file.fileno())
                file.close()
        sha256 = f"sha256:{digest.hexdigest()}"
        self._database.execute(
            "UPDATE ingest SET sha256 = ? WHERE name = ?", (sha256, name.partition("/files/")[0])
        )
        return resources_pb2.File(name=name, sha256=sha256, state=resources_pb2.File.STATE_STORED)

    def _ingest(self, name: str) -> resources_pb2.Ingest:
        _, size, sha256 = self._database.execute("SELECT * FROM ingest WHERE name = ?", (name,)).fetchone()
        file = resources_pb2.File(name=f"{name}/files/model.gguf", size_bytes=size, sha256=sha256)
        return resources_pb2.Ingest(name=name, files=[file])


async def serve(directory: Path, address: str) -> None:
    monitor, stop = LoopMonitor(0.1, on_stall=lambda *_: None), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 4 * 1024 * 1024)])
    add_IngestServiceServicer_to_server(Naive(directory), server)
    server.add_insecure_port(address)
    await server.start()
    monitor.start()
    print("serving", flush=True)
    await stop.wait()
    monitor.stop()
    print(json.dumps({"message": "event loop", **monitor.lag.fields()}), flush=True)
    await server.stop(0)


if __name__ == "__main__":
    # As ours does: what is compared is the way of the chunks, not the allocator.
    tune_allocator()
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
