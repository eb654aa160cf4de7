"""Uploads whose messages come in the wrong order, at the wrong offsets, in the wrong size or damaged."""

from __future__ import annotations

import google_crc32c
import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import CreateIngestRequest, UploadRequest, UploadStart

from tests.rpc.refusals import refused
from tests.rpc.scenes import Scene
from tests.rpc.uploading import chunk, finish, start, upload, upload_call
from tests.support.files import MEBIBYTE, create_request, digest, gguf, upload_messages
from tests.support.models import beginning

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATA = gguf(3 * MEBIBYTE)
HEAD = DATA[:MEBIBYTE]


async def left_resumable(shared: Scene, file: str, committed_size: int) -> None:
    """It could go on there; nobody does, and the next test finds nothing of it."""
    await shared.assert_resumable(file, committed_size)
    await shared.give_up(file)


@pytest.mark.parametrize(
    "messages",
    [[chunk(0, HEAD)], [finish(digest(DATA))], [UploadRequest()], []],
    ids=["chunk", "finish", "empty message", "nothing"],
)
async def test_anything_before_start(shared: Scene, messages: list[UploadRequest]) -> None:
    before = await shared.all_ingests()
    await refused(upload(shared.running, messages), "STREAM_PROTOCOL", "message")
    assert await shared.all_ingests() == before


async def test_a_start_that_names_nothing(shared: Scene) -> None:
    nothing = [UploadRequest(start=UploadStart())]
    await refused(upload(shared.running, nothing), "STREAM_PROTOCOL", "start")
    await refused(upload(shared.running, [start("")]), "STREAM_PROTOCOL", "start")


@pytest.mark.extended_unless("start")
@pytest.mark.parametrize("again", ["start", "empty message"])
async def test_a_second_start(shared: Scene, again: str) -> None:
    file = await shared.new_file(DATA)
    second = start(file) if again == "start" else UploadRequest()
    await refused(upload(shared.running, [start(file), chunk(0, HEAD), second]), "STREAM_PROTOCOL", "message")
    await left_resumable(shared, file, MEBIBYTE)


@pytest.mark.extended_unless("9223372036854775807", "1048577")
@pytest.mark.parametrize("offset", [MEBIBYTE + 1, 2 * MEBIBYTE, 2**62, 2**63 - 1])
async def test_an_offset_beyond_what_has_arrived(shared: Scene, offset: int) -> None:
    file = await shared.new_file(DATA)
    messages = [start(file), chunk(0, HEAD), chunk(offset, b"x")]
    refusal = await refused(upload(shared.running, messages), "OFFSET_GAP")
    assert refusal.metadata == {"committed_size": str(MEBIBYTE)}
    await left_resumable(shared, file, MEBIBYTE)


@pytest.mark.extended_unless("-1")
@pytest.mark.parametrize("offset", [-1, -(2**63)])
async def test_a_negative_offset(shared: Scene, offset: int) -> None:
    file = await shared.new_file(DATA)
    await refused(
        upload(shared.running, [start(file), chunk(offset, HEAD)]), "ARGUMENT_INVALID", "chunk.offset"
    )
    await left_resumable(shared, file, 0)


@pytest.mark.parametrize("data", [HEAD, b""])
async def test_bytes_beyond_the_declared_size(shared: Scene, data: bytes) -> None:
    """Also an empty chunk that starts within what has arrived, with one byte too many before it."""
    whole = gguf(MEBIBYTE)
    file = await shared.new_file(whole)
    tail = chunk(MEBIBYTE, data) if data else chunk(MEBIBYTE - 1, b"xx")
    await refused(upload(shared.running, [start(file), chunk(0, whole), tail]), "SIZE_MISMATCH")
    await shared.assert_failed(file, "SIZE_MISMATCH")


@pytest.mark.extended_unless("6291456")
@pytest.mark.parametrize("declared", [len(DATA) + 1, len(DATA) * 2])
async def test_finish_before_all_declared_bytes_are_there(shared: Scene, declared: int) -> None:
    file = await shared.new_file(declared)
    data = beginning(declared, len(DATA))
    await refused(upload(shared.running, upload_messages(file, data)), "SIZE_MISMATCH")
    await shared.assert_failed(file, "SIZE_MISMATCH")


async def test_a_chunk_whose_crc32c_is_another(shared: Scene) -> None:
    file = await shared.new_file(DATA)
    good, flipped = DATA[MEBIBYTE : 2 * MEBIBYTE], bytearray(DATA[MEBIBYTE : 2 * MEBIBYTE])
    flipped[1000] ^= 1
    damaged = chunk(MEBIBYTE, bytes(flipped), crc32c=google_crc32c.value(good))
    messages = [start(file), chunk(0, HEAD, crc32c=google_crc32c.value(HEAD)), damaged]
    refusal = await refused(upload(shared.running, messages), "CHUNK_CHECKSUM_MISMATCH")
    assert refusal.metadata == {"committed_size": str(MEBIBYTE)}
    await left_resumable(shared, file, MEBIBYTE)


async def test_a_crc32c_of_zero_is_one_that_was_given(shared: Scene) -> None:
    file = await shared.new_file(DATA)
    await refused(upload(shared.running, [start(file), chunk(0, HEAD, crc32c=0)]), "CHUNK_CHECKSUM_MISMATCH")
    await left_resumable(shared, file, 0)


async def test_a_known_part_is_checked_before_it_is_skipped(shared: Scene) -> None:
    file = await shared.new_file(DATA)
    messages = [start(file), chunk(0, HEAD), chunk(0, HEAD, crc32c=1)]
    await refused(upload(shared.running, messages), "CHUNK_CHECKSUM_MISMATCH")
    await left_resumable(shared, file, MEBIBYTE)


@pytest.mark.extended_unless("2097153")
@pytest.mark.parametrize("size_bytes", [2 * MEBIBYTE + 1, 3 * MEBIBYTE])
async def test_a_chunk_over_the_cap(shared: Scene, size_bytes: int) -> None:
    file = await shared.new_file(DATA)
    refusal = await refused(
        upload(shared.running, [start(file), chunk(0, DATA[:size_bytes])]), "CHUNK_TOO_LARGE", "chunk.data"
    )
    assert refusal.metadata == {"limit_bytes": str(2 * MEBIBYTE)}
    await left_resumable(shared, file, 0)


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (create_request(DATA, "../m"), "NAME_INVALID", "model"),
        (create_request(b"", "m"), "SIZE_LIMIT", "files[0].size_bytes"),
        (CreateIngestRequest(model="m"), "OPTION_UNSUPPORTED", "files"),
        (create_request(DATA, "m", targets=["nowhere"]), "TARGET_UNKNOWN", "targets[0]"),
    ],
)
async def test_a_start_that_would_create_what_create_refuses(
    shared: Scene, request_: CreateIngestRequest, reason: str, field: str
) -> None:
    before = await shared.all_ingests()
    await refused(upload(shared.running, upload_messages(request_, DATA)), reason, field)
    assert await shared.all_ingests() == before


async def test_a_file_that_failed_takes_no_more_bytes(shared: Scene) -> None:
    file = await shared.new_file(MEBIBYTE)
    await refused(upload(shared.running, [start(file), chunk(0, HEAD + b"x")]), "SIZE_MISMATCH")
    await refused(upload(shared.running, upload_messages(file, HEAD)), "UPLOAD_CLOSED")
    ingest = await shared.assert_failed(file, "SIZE_MISMATCH")
    assert ingest.files[0].state == resources_pb2.File.STATE_FAILED


@pytest.mark.asyncio(loop_scope="function")
async def test_a_second_upload_of_a_file_takes_it_over_from_the_first(scene: Scene) -> None:
    file = await scene.new_file(DATA)
    async with scene.running.channel() as channel:
        first = upload_call(channel)
        await first.write(start(file))
        await scene.uploading(file)
        stored = await upload(scene.running, upload_messages(file, DATA))
        await refused(first, "WRITER_SUPERSEDED")
    assert (stored.state, stored.sha256) == (resources_pb2.File.STATE_STORED, digest(DATA))
