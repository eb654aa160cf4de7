"""An upload goes on where its durable bytes end: after a half-close, a vanished client, a restart."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import (
    GetIngestRequest,
    UploadChunk,
    UploadFinish,
    UploadRequest,
    UploadStart,
)

from tests.conftest import StartService
from tests.support.files import MEBIBYTE, create_request, digest, gguf, send, upload_messages
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

UPLOADING = resources_pb2.File.STATE_UPLOADING
STORED = resources_pb2.File.STATE_STORED


async def create(service: RunningService, data: bytes, **fields: object) -> str:
    """A new ingest for the bytes; its file's name."""
    return (await service.ingests.CreateIngest(create_request(data, **fields))).files[0].name  # type: ignore[arg-type]


async def now(service: RunningService, file_name: str) -> resources_pb2.File:
    """The file as GetIngest has it."""
    ingest = file_name.partition("/files/")[0]
    return (await service.ingests.GetIngest(GetIngestRequest(name=ingest))).files[0]


def part(file_name: str, data: bytes, start: int, end: int) -> list[UploadRequest]:
    """start and the chunks of data[start:end], no finish."""
    chunks = [
        UploadRequest(chunk=UploadChunk(offset=offset, data=data[offset : min(offset + 65536, end)]))
        for offset in range(start, end, 65536)
    ]
    return [UploadRequest(start=UploadStart(file=file_name)), *chunks]


def finish(data: bytes) -> UploadRequest:
    return UploadRequest(finish=UploadFinish(sha256=digest(data)))


async def test_a_half_closed_stream_answers_what_is_durable_and_goes_on_there(
    start_service: StartService,
) -> None:
    service = await start_service()
    data = gguf(3 * MEBIBYTE)
    name = await create(service, data)
    first = await send(service.ingests, part(name, data, 0, MEBIBYTE))
    assert (first.state, first.committed_size) == (UPLOADING, MEBIBYTE)
    second = await send(service.ingests, part(name, data, MEBIBYTE, 2 * MEBIBYTE))
    assert second.committed_size == 2 * MEBIBYTE
    last = await send(service.ingests, [*part(name, data, 2 * MEBIBYTE, len(data)), finish(data)])
    assert (last.state, last.sha256) == (STORED, digest(data))


async def test_bytes_sent_again_are_skipped(start_service: StartService) -> None:
    service = await start_service()
    data = gguf(2 * MEBIBYTE)
    name = await create(service, data)
    await send(service.ingests, part(name, data, 0, MEBIBYTE + 777))
    assert (await send(service.ingests, upload_messages(name, data))).state == STORED


async def test_a_vanished_client_leaves_all_that_arrived(start_service: StartService) -> None:
    service = await start_service()
    data = gguf(3 * MEBIBYTE)
    name = await create(service, data)
    call = service.ingests.Upload()
    for message in part(name, data, 0, 2 * MEBIBYTE):
        await call.write(message)
    sessions = service.service.uploads._sessions
    while not any(session.pipeline.received_bytes for session in sessions.values()):
        await asyncio.sleep(0.01)
    call.cancel()
    while (left := await now(service, name)).committed_size == 0 or service.service.uploads.active:
        await asyncio.sleep(0.01)
    assert left.state == UPLOADING
    rest = [*part(name, data, left.committed_size, len(data)), finish(data)]
    assert (await send(service.ingests, rest)).state == STORED


async def test_a_restarted_service_goes_on_and_hashes_the_file_from_its_first_byte(
    start_service: StartService, database_url: str
) -> None:
    first = await start_service(database_url=database_url)
    data = gguf(20 * MEBIBYTE)
    name = await create(first, data)
    await send(first.ingests, part(name, data, 0, 12 * MEBIBYTE))
    await first.service.stop(0.0)
    second = await start_service(database_url=database_url)
    assert (await now(second, name)).committed_size == 12 * MEBIBYTE
    rest = [*part(name, data, 12 * MEBIBYTE, len(data)), finish(data)]
    assert (await send(second.ingests, rest)).sha256 == digest(data)


async def test_the_newcomer_wins_and_the_holder_is_told(start_service: StartService) -> None:
    service = await start_service()
    data = gguf(3 * MEBIBYTE)
    name = await create(service, data)
    holder = service.ingests.Upload()
    for message in part(name, data, 0, MEBIBYTE):
        await holder.write(message)
    while service.service.uploads.active == 0:
        await asyncio.sleep(0.01)
    assert (await send(service.ingests, upload_messages(name, data))).state == STORED
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await holder
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_two_processes_on_one_directory_hand_the_file_over(
    start_service: StartService, database_url: str
) -> None:
    one = await start_service(database_url=database_url)
    two = await start_service(database_url=database_url)
    data = gguf(3 * MEBIBYTE)
    name = await create(one, data)
    holder = one.ingests.Upload()
    for message in part(name, data, 0, 2 * MEBIBYTE):
        await holder.write(message)
    while one.service.uploads.active == 0:
        await asyncio.sleep(0.01)
    assert (await send(two.ingests, upload_messages(name, data))).state == STORED
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await holder
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_a_wrong_chunk_costs_only_itself(start_service: StartService) -> None:
    service = await start_service()
    data = gguf(2 * MEBIBYTE)
    name = await create(service, data)
    messages = part(name, data, 0, MEBIBYTE)
    messages.append(UploadRequest(chunk=UploadChunk(offset=MEBIBYTE, data=b"x" * 100, crc32c=1)))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await send(service.ingests, messages)
    assert refused.value.code() == grpc.StatusCode.ABORTED
    assert (await now(service, name)).committed_size == MEBIBYTE
    rest = [*part(name, data, MEBIBYTE, len(data)), finish(data)]
    assert (await send(service.ingests, rest)).state == STORED
