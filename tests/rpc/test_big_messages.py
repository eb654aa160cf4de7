"""Messages that are too large, compressed or no protobuf at all, and too much metadata."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from model_ingest.v1.ingest_service_pb2 import (
    CreateIngestRequest,
    GetCapabilitiesRequest,
    GetIngestRequest,
    UploadRequest,
)

from tests.rpc.refusals import refused, refused_without_reason
from tests.rpc.scenes import Scene
from tests.rpc.uploading import chunk, start, upload
from tests.support.files import MEBIBYTE, gguf

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATA = gguf(64 * MEBIBYTE)
HEAD = chunk(0, DATA[:MEBIBYTE])
#: A length-delimited field that promises more bytes than there are.
TRUNCATED = b"\x12\xff\xff\xff\x7f\x00"
#: A string field that is no UTF-8, in GetIngestRequest.name, CreateIngestRequest.model, UploadStart.file.
NO_UTF8 = b"\x0a\x03\xff\xfe\xfd"


def chunk_message(size_bytes: int) -> UploadRequest:
    """A chunk whose whole message has that size."""
    around = chunk(MEBIBYTE, DATA[:size_bytes]).ByteSize() - size_bytes
    message = chunk(MEBIBYTE, DATA[: size_bytes - around])
    assert message.ByteSize() == size_bytes
    return message


async def left_resumable(shared: Scene, file: str) -> None:
    """With the first chunk or, where the refusal overtook it on its way, without; nobody goes on."""
    await shared.quiet()
    committed = (await shared.get(file)).files[0].committed_size
    assert committed in {0, MEBIBYTE}
    await shared.assert_resumable(file, committed)
    await shared.give_up(file)


@pytest.mark.extended_unless("4194305")
@pytest.mark.parametrize("size_bytes", [4 * MEBIBYTE + 1, 64 * MEBIBYTE])
async def test_a_message_over_the_receive_limit_is_refused_by_grpc_itself(
    shared: Scene, size_bytes: int
) -> None:
    file = await shared.new_file(DATA)
    messages = [start(file), HEAD, chunk_message(size_bytes)]
    await refused_without_reason(upload(shared.running, messages), grpc.StatusCode.RESOURCE_EXHAUSTED)
    await left_resumable(shared, file)


async def test_a_message_as_large_as_the_receive_limit_is_refused_by_us(shared: Scene) -> None:
    file = await shared.new_file(DATA)
    messages = [start(file), HEAD, chunk_message(4 * MEBIBYTE)]
    await refused(upload(shared.running, messages), "CHUNK_TOO_LARGE", "chunk.data")
    await left_resumable(shared, file)


async def test_a_unary_request_over_the_receive_limit(shared: Scene) -> None:
    before = await shared.all_ingests()
    request = CreateIngestRequest(model="m" * 5 * MEBIBYTE)
    await refused_without_reason(
        shared.running.ingests.CreateIngest(request), grpc.StatusCode.RESOURCE_EXHAUSTED
    )
    assert await shared.all_ingests() == before


@pytest.mark.parametrize("data", [TRUNCATED, NO_UTF8, b"\xff" * 1000], ids=["cut", "no UTF-8", "noise"])
@pytest.mark.parametrize("method", ["GetIngest", "CreateIngest", "WatchIngest"])
async def test_a_request_that_is_no_protobuf(shared: Scene, method: str, data: bytes) -> None:
    before = await shared.all_ingests()
    async with shared.running.channel() as channel:
        make: Any = channel.unary_stream if method == "WatchIngest" else channel.unary_unary
        call = make(f"/model_ingest.v1.IngestService/{method}")(data, timeout=30)
        answer = call.read() if method == "WatchIngest" else call
        refusal = await refused_without_reason(answer, grpc.StatusCode.INVALID_ARGUMENT)
    assert refusal.message == "The message is no valid protobuf of this method's request type."
    assert await shared.all_ingests() == before


@pytest.mark.extended_unless("0-cut", "1-noise", "2-no UTF")
@pytest.mark.parametrize(
    "data", [TRUNCATED, b"\x0a\x05" + NO_UTF8, b"\xff" * 1000], ids=["cut", "no UTF-8", "noise"]
)
@pytest.mark.parametrize("position", [0, 1, 2])
async def test_an_upload_message_that_is_no_protobuf(shared: Scene, data: bytes, position: int) -> None:
    before = await shared.all_ingests()
    file = await shared.new_file(DATA)
    messages: list[UploadRequest | bytes] = [start(file), HEAD]
    messages.insert(position, data)
    refusal = await refused_without_reason(upload(shared.running, messages), grpc.StatusCode.INVALID_ARGUMENT)
    assert refusal.message == "The message is no valid protobuf of this method's request type."
    if position == 0:
        # Nobody can say which file it was for.
        assert not (await shared.get(file)).done
        assert len(await shared.all_ingests()) == len(before) + 1
        return
    await left_resumable(shared, file)


async def test_a_compressed_message_is_refused(shared: Scene) -> None:
    file = await shared.new_file(DATA)
    gzip = grpc.Compression.Gzip
    messages = [start(file), HEAD, chunk(MEBIBYTE, b"x" * MEBIBYTE)]
    await refused_without_reason(
        upload(shared.running, messages, compression=gzip), grpc.StatusCode.UNIMPLEMENTED
    )
    unary = shared.running.ingests.GetIngest(GetIngestRequest(name="i" * 2000), compression=gzip)
    await refused_without_reason(unary, grpc.StatusCode.UNIMPLEMENTED)
    # Not one message of it was taken.
    assert (await shared.get(file)).last_sequence == 1


async def test_no_answer_is_compressed(shared: Scene) -> None:
    call = shared.running.ingests.GetCapabilities(GetCapabilitiesRequest())
    await call
    encodings = [value for key, value in await call.initial_metadata() if key == "grpc-encoding"]
    assert encodings in ([], ["identity"])


async def test_metadata_over_its_limit_is_refused_and_less_is_not(shared: Scene) -> None:
    def call(size_bytes: int) -> Any:
        return shared.running.ingests.GetCapabilities(
            GetCapabilitiesRequest(), metadata=(("x-filler", "a" * size_bytes),)
        )

    await call(12 * 1024)
    await refused_without_reason(call(64 * 1024), grpc.StatusCode.RESOURCE_EXHAUSTED)
    await call(1)
