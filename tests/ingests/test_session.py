"""The rules of one upload: offsets, sizes, checksums, digests, the first bytes."""

from __future__ import annotations

import google_crc32c
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest_service.ingests.session import UploadSession
from ingest_service.vocabulary.errors import (
    ArgumentInvalid,
    ChunkChecksumMismatch,
    ChunkTooLarge,
    DigestMalformed,
    DigestMismatch,
    DigestRequired,
    FormatInvalid,
    IngestError,
    OffsetGap,
    SizeMismatch,
)
from ingest_service.vocabulary.records import File
from ingest_service.vocabulary.states import FileState
from tests.ingests.parts import KIBIBYTE, Parts, check_resumable, model_bytes
from tests.support.files import digest

DATA = model_bytes(100 * KIBIBYTE)
SMALLEST = len(model_bytes(0))


@pytest.fixture
def parts(parts_on_sqlite: Parts) -> Parts:
    return parts_on_sqlite


async def upload(
    parts: Parts, data: bytes, chunks: list[tuple[int, bytes, int | None]], sha256: str, declared: str = ""
) -> File:
    """An Upload call with these chunks."""
    ingest = await parts.create(data, sha256=declared)
    async with parts.uploads.receive(ingest.id, "model.gguf") as session:
        assert isinstance(session, UploadSession)
        for offset, part, crc32c in chunks:
            await session.chunk(offset, part, crc32c)
        return await parts.uploads.finish(session, sha256)


BAD_CHUNKS: dict[str, tuple[list[tuple[int, bytes, int | None]], type[IngestError], dict[str, str]]] = {
    "a gap": ([(0, DATA[:100], None), (101, DATA[101:], None)], OffsetGap, {"committed_size": "100"}),
    "a gap at the start": ([(1, DATA[1:], None)], OffsetGap, {"committed_size": "0"}),
    "an empty chunk beyond": ([(5, b"", None)], OffsetGap, {"committed_size": "0"}),
    "more than declared": ([(0, DATA + b"x", None)], SizeMismatch, {}),
    "more than declared, at the end": ([(0, DATA, None), (len(DATA), b"x", None)], SizeMismatch, {}),
    "less than declared": ([(0, DATA[:-1], None)], SizeMismatch, {}),
    "nothing": ([], SizeMismatch, {}),
    "a negative offset": ([(-1, DATA, None)], ArgumentInvalid, {}),
    "a wrong checksum": ([(0, DATA, 1)], ChunkChecksumMismatch, {"committed_size": "0"}),
    "a wrong checksum of zero": ([(0, DATA, 0)], ChunkChecksumMismatch, {"committed_size": "0"}),
    "a wrong checksum of an overlap": (
        [(0, DATA[:50], None), (0, DATA, 1)], ChunkChecksumMismatch, {"committed_size": "50"},
    ),
    "a chunk over the cap": (
        [(0, bytes(2 * 1024 * KIBIBYTE + 1), None)], ChunkTooLarge, {"limit_bytes": str(2 * 1024 * KIBIBYTE)},
    ),
    "no gguf": (
        [(0, b"PK\x03\x04" + DATA[4:], None)], FormatInvalid,
        {"rule": "H1", "offset": "0", "field": "magic"},
    ),
}  # fmt: skip


#: After these the file's bytes are of no use. After all others it waits for the right ones.
FINAL = (SizeMismatch, FormatInvalid)


@pytest.mark.extended_unless(
    "a wrong checksum of an overlap", "a gap at", "a negative offset", "over the cap"
)
@pytest.mark.parametrize("name", BAD_CHUNKS)
async def test_bad_chunks_are_refused_and_cost_only_themselves_unless_the_file_is_wrong(
    parts: Parts, name: str
) -> None:
    chunks, error, metadata = BAD_CHUNKS[name]
    with pytest.raises(error) as caught:
        await upload(parts, DATA, chunks, digest(DATA))
    assert caught.value.metadata == metadata
    ingests, _ = await parts.ingests.page(model="", states=(), before_number=None, limit=10)
    file = ingests[0].files[0]
    if error not in FINAL:
        committed = await check_resumable(parts, ingests[0], DATA)
        assert committed == int(metadata.get("committed_size", 0))
        return
    assert file.state is FileState.FAILED
    assert file.failure is not None
    assert file.failure.reason is error.reason
    assert parts.partials() == []
    assert parts.blob(DATA) is None


DIGESTS: dict[str, tuple[str, str, type[IngestError] | None]] = {
    "in finish": ("", digest(DATA), None),
    "in create": (digest(DATA), "", None),
    "in both": (digest(DATA), digest(DATA), None),
    "in neither": ("", "", DigestRequired),
    "another in finish": ("", digest(b""), DigestMismatch),
    "another in create": (digest(b""), "", DigestMismatch),
    "two that differ": (digest(DATA), digest(b""), DigestMismatch),
    "two that differ, the second one right": (digest(b""), digest(DATA), DigestMismatch),
    "malformed": ("", "sha256:0", DigestMalformed),
    "upper case": ("", digest(DATA).upper(), DigestMalformed),
}


@pytest.mark.extended_unless("in neither", "malformed", "in create", "another in finish")
@pytest.mark.parametrize("name", DIGESTS)
async def test_a_digest_is_given_once_at_least_and_right(parts: Parts, name: str) -> None:
    declared, given_last, error = DIGESTS[name]
    if error is None:
        file = await upload(parts, DATA, [(0, DATA, None)], given_last, declared)
        assert (file.state, file.sha256) == (FileState.STORED, digest(DATA))
        return
    with pytest.raises(error):
        await upload(parts, DATA, [(0, DATA, None)], given_last, declared)
    assert parts.blob(DATA) is None
    if error is DigestMismatch:
        assert parts.partials() == []
        return
    ingests, _ = await parts.ingests.page(model="", states=(), before_number=None, limit=1)
    assert await check_resumable(parts, ingests[0], DATA) == len(DATA)


async def test_a_digest_may_be_left_out_where_it_is_not_required(parts: Parts) -> None:
    parts.new_uploads(require_digest=False)
    assert (await upload(parts, DATA, [(0, DATA, None)], "")).sha256 == digest(DATA)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 300), st.booleans()), max_size=20),
    size=st.integers(SMALLEST, 2000),
)
async def test_overlaps_are_skipped_and_any_order_without_a_gap_gives_the_file(
    parts: Parts, cuts: list[tuple[int, int, bool]], size: int
) -> None:
    """Chunks that start anywhere at or before the writer's position, as a client sends that resumes."""
    data = model_bytes(size, seed=size)
    position, chunks = 0, []
    for back, length, checked in [*cuts, (0, size, True)]:
        offset = max(0, position - back)
        part = data[offset : offset + length]
        chunks.append((offset, part, google_crc32c.value(part) if checked else None))
        position = max(position, offset + len(part))
    file = await upload(parts, data, chunks, digest(data))
    assert file.state is FileState.STORED
    assert parts.blob(data) == data


@pytest.mark.extended_unless("417")
@pytest.mark.parametrize("size_bytes", [SMALLEST, SMALLEST + 1, 1000])
async def test_a_small_file_may_come_byte_by_byte(parts: Parts, size_bytes: int) -> None:
    data = model_bytes(size_bytes)
    chunks: list[tuple[int, bytes, int | None]] = [
        (offset, data[offset : offset + 1], None) for offset in range(size_bytes)
    ]
    assert (await upload(parts, data, chunks, digest(data))).state is FileState.STORED
    assert parts.blob(data) == data


async def test_a_file_that_is_no_model_is_refused_before_the_rest_of_it_is_sent(parts: Parts) -> None:
    ingest = await parts.create(DATA)
    async with parts.uploads.receive(ingest.id, "model.gguf") as session:
        assert isinstance(session, UploadSession)
        await session.chunk(0, b"<html>" + bytes(57), None)
        with pytest.raises(FormatInvalid):
            await session.chunk(63, b"x", None)


async def test_bytes_beyond_the_declared_size_are_refused_before_they_are_written(parts: Parts) -> None:
    ingest = await parts.create(DATA)
    async with parts.uploads.receive(ingest.id, "model.gguf") as session:
        assert isinstance(session, UploadSession)
        await session.chunk(0, DATA, None)
        with pytest.raises(SizeMismatch, match=f"this chunk ends at {len(DATA) + 1}"):
            await session.chunk(len(DATA), b"x", None)
