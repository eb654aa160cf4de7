"""Bytes that are no GGUF end the upload as soon as their first bytes are here, named as what they are."""

from __future__ import annotations

import pytest

from tests.rpc.refusals import refused
from tests.rpc.scenes import Scene
from tests.rpc.uploading import chunk, finish, start, upload
from tests.support.files import MEBIBYTE, digest, upload_messages

pytestmark = pytest.mark.asyncio(loop_scope="module")

_REST = b"\x00" * 200


@pytest.mark.extended_unless("HTML", "git lfs pull", "FUGG")
@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>403</body></html>", "HTML"),
        (b"\r\n <HTML><head>", "HTML"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"PK\x03\x04", "ZIP"),
        (b"\x80\x02}q\x00", "pickle"),
        (b"\x80\x04\x95", "pickle"),
        (b"FUGG\x00\x00\x00\x03", "big-endian"),
        (b"lmgg", "GGML"),
        (b"tjgg\x03\x00\x00\x00", "GGJT"),
        (b'\x40\x00\x00\x00\x00\x00\x00\x00{"a":1}', "safetensors"),
        (b"gguf", "does not start with `GGUF`"),
        (b"GGU", "does not start with `GGUF`"),
        (b"\x00", "does not start with `GGUF`"),
    ],
)  # fmt: skip
async def test_bytes_that_are_no_gguf_are_named_for_what_they_are(
    shared: Scene, head: bytes, words: str
) -> None:
    data = head + _REST
    file = await shared.new_file(data)
    refusal = await refused(upload(shared.running, upload_messages(file, data)), "FORMAT_INVALID", "magic")
    assert refusal.metadata == {"rule": "H1", "offset": "0", "field": "magic"}
    assert words in refusal.message
    ingest = await shared.assert_failed(file, "FORMAT_INVALID")
    assert ingest.failure.message == refusal.message
    assert dict(ingest.failure.metadata) == refusal.metadata


@pytest.mark.extended_unless("GGUF\\x03")
@pytest.mark.parametrize("data", [b"G", b"GGUF", b"GGUF\x03\x00\x00\x00", b"GGUF" + b"\x00" * 19])
async def test_a_file_shorter_than_any_gguf_header(shared: Scene, data: bytes) -> None:
    file = await shared.new_file(data)
    await refused(upload(shared.running, upload_messages(file, data)), "FORMAT_INVALID", "magic")
    await shared.assert_failed(file, "FORMAT_INVALID")


async def test_the_magic_is_seen_through_chunks_of_one_byte(shared: Scene) -> None:
    data = b"GGUX" + _REST
    file = await shared.new_file(data)
    messages = upload_messages(file, data, chunk_bytes=1)
    await refused(upload(shared.running, messages), "FORMAT_INVALID", "magic")
    await shared.assert_failed(file, "FORMAT_INVALID")


async def test_a_file_that_is_no_gguf_is_refused_before_the_rest_is_sent(shared: Scene) -> None:
    """The stream stays open and no `finish` comes: the answer does not wait for either."""
    file = await shared.new_file(100 * MEBIBYTE)
    messages = [start(file), chunk(0, b"\x1f\x8b" + _REST)]
    await refused(upload(shared.running, messages, half_close=False), "FORMAT_INVALID", "magic")
    await shared.assert_failed(file, "FORMAT_INVALID")


async def test_an_empty_file_is_refused_by_create_and_takes_no_bytes(shared: Scene) -> None:
    await refused(shared.new_file(b""), "SIZE_LIMIT", "files[0].size_bytes")
    file = await shared.new_file(1)
    messages = [start(file), chunk(0, b""), finish(digest(b""))]
    await refused(upload(shared.running, messages), "SIZE_MISMATCH")
    await shared.assert_failed(file, "SIZE_MISMATCH")
