"""A raw client that writes down every promise it was given."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import google_crc32c
import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from model_ingest._truth import FirstStatus
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import (
    GetIngestRequest,
    UploadChunk,
    UploadFinish,
    UploadRequest,
    UploadStart,
    WatchIngestRequest,
)

from tests.support.files import MEBIBYTE, create_request, digest
from tests.support.stubs import IngestStub

STORED = resources_pb2.File.STATE_STORED
UPLOADING = resources_pb2.File.STATE_UPLOADING
PENDING = resources_pb2.File.STATE_PENDING
BEING_FINISHED = {resources_pb2.File.STATE_VERIFYING, resources_pb2.File.STATE_PUBLISHING}
GIVE_UP_SECONDS = 60.0


def messages(
    file_name: str, data: bytes, *, start: int = 0, chunk_bytes: int = 256 * 1024, finish: bool = True
) -> list[UploadRequest]:
    """An Upload call's messages for data[start:]."""
    chunks = [
        UploadRequest(
            chunk=UploadChunk(
                offset=offset,
                data=data[offset : offset + chunk_bytes],
                crc32c=google_crc32c.value(data[offset : offset + chunk_bytes]),
            )
        )
        for offset in range(start, len(data), chunk_bytes)
    ]
    end = [UploadRequest(finish=UploadFinish(sha256=digest(data)))] if finish else []
    return [UploadRequest(start=UploadStart(file=file_name)), *chunks, *end]


async def upload(
    stub: IngestStub, wanted: Iterable[UploadRequest], *, timeout: float = GIVE_UP_SECONDS
) -> resources_pb2.File:
    """One Upload call; the file, or the true error."""
    call = stub.Upload(timeout=timeout)
    first = FirstStatus(call)
    for message in wanted:
        try:
            await call.write(message)
        except Exception:  # noqa: BLE001 (the truth is in the call, peers.md P4)
            break
    else:
        with contextlib.suppress(Exception):
            await call.done_writing()
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise first.truth(error) from None


async def get(stub: IngestStub, name: str) -> resources_pb2.Ingest:
    ingest = name.partition("/files/")[0]
    return await stub.GetIngest(GetIngestRequest(name=ingest), timeout=30)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason of a refused call; "" if it has none."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            return str(info.reason)
    return ""


@dataclass
class Told:
    """What a client was told of one file before its server died."""

    file_name: str = ""
    committed: list[int] = field(default_factory=list)
    stored: bool = False

    @property
    def most(self) -> int:
        return max(self.committed, default=0)

    def note(self, file: resources_pb2.File) -> None:
        assert file.committed_size >= self.most, "committed_size went backwards"
        self.committed.append(file.committed_size)
        self.stored |= file.state == STORED


async def resume(stub: IngestStub, told: Told, data: bytes) -> resources_pb2.File:
    """Goes on where the service says; bounded."""
    file = (await get(stub, told.file_name)).files[0]
    return await upload(stub, messages(told.file_name, data, start=file.committed_size))


async def upload_until_the_end(stub: IngestStub, told: Told, data: bytes, request_id: str) -> None:
    """Create and upload, waiting for each MiB to be committed; ends when all is stored or the server dies."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        ingest = await stub.CreateIngest(create_request(data, request_id=request_id), timeout=30)
        told.file_name = ingest.files[0].name
        call = stub.Upload(timeout=GIVE_UP_SECONDS)
        for message in messages(told.file_name, data):
            await call.write(message)
            sent = message.chunk.offset + len(message.chunk.data)
            while sent >= told.most + MEBIBYTE:
                told.note((await get(stub, told.file_name)).files[0])
        await call.done_writing()
        told.note(await call)


async def events_of(stub: IngestStub, name: str) -> list[int]:
    """The numbers of all events of a done ingest."""
    ingest = name.partition("/files/")[0]
    watch = stub.WatchIngest(WatchIngestRequest(name=ingest), timeout=30)
    return [item.event.sequence async for item in watch if item.event.sequence]
