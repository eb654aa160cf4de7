"""Model files for tests, and sending them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
from model_ingest._truth import FirstStatus
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import (
    CreateIngestRequest,
    FileSpec,
    UploadChunk,
    UploadFinish,
    UploadRequest,
    UploadStart,
)

from tests.support.models import model
from tests.support.stubs import IngestStub

MEBIBYTE = 1024 * 1024


def gguf(size_bytes: int = 0, seed: int = 0) -> bytes:
    """A valid GGUF of that size, or a small one; random data, the same for the same seed."""
    return model(size_bytes, seed)


def digest(data: bytes) -> str:
    """`sha256:<hex>`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def create_request(
    data: bytes | int, model: str = "test", *, file_name: str = "model.gguf", sha256: str = "", **fields: Any
) -> CreateIngestRequest:
    """A CreateIngestRequest for one file (its bytes, or their number)."""
    size_bytes = data if isinstance(data, int) else len(data)
    spec = FileSpec(file_name=file_name, size_bytes=size_bytes, sha256=sha256)
    return CreateIngestRequest(model=model, files=[spec], **fields)


def upload_messages(
    start: str | CreateIngestRequest, data: bytes, *, chunk_bytes: int = MEBIBYTE, sha256: str | None = None
) -> list[UploadRequest]:
    """start, chunks with crc32c, finish with the digest (`sha256=""`: without)."""
    first = UploadStart(file=start) if isinstance(start, str) else UploadStart(create=start)
    messages = [UploadRequest(start=first)]
    for offset in range(0, len(data), chunk_bytes):
        part = data[offset : offset + chunk_bytes]
        messages.append(
            UploadRequest(chunk=UploadChunk(offset=offset, data=part, crc32c=google_crc32c.value(part)))
        )
    finish = UploadFinish(sha256=digest(data) if sha256 is None else sha256)
    return [*messages, UploadRequest(finish=finish)]


async def send(stub: IngestStub, messages: Sequence[UploadRequest]) -> resources_pb2.File:
    """Sends an upload; answers the file, or raises the call's true error (peers.md P4)."""
    call = stub.Upload(timeout=60)
    first = FirstStatus(call)
    for message in messages:
        try:
            await call.write(message)
        except Exception:  # noqa: BLE001 (whatever it says, the truth is in the call, P4)
            break
    else:
        await call.done_writing()
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        # `await call` itself says INTERNAL now and then although the server said something else.
        raise first.truth(error) from None


async def push(stub: IngestStub, data: bytes, model: str = "test", **fields: Any) -> resources_pb2.Ingest:
    """Creates, uploads and watches to the end; answers the ingest."""
    from model_ingest.v1.ingest_service_pb2 import GetIngestRequest, WatchIngestRequest

    ingest = await stub.CreateIngest(create_request(data, model, **fields))
    if ingest.files[0].state != resources_pb2.File.STATE_STORED:
        await send(stub, upload_messages(ingest.files[0].name, data))
    async for _ in stub.WatchIngest(WatchIngestRequest(name=ingest.name), timeout=60):
        pass
    return await stub.GetIngest(GetIngestRequest(name=ingest.name))


def stored_blobs(data_dir: Path) -> list[Path]:
    """The files in the store's directory, but for what the readiness check writes there for a moment."""
    return sorted(path for path in (data_dir / "blobs").iterdir() if ".probe" not in path.name)
