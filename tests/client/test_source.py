"""A local file: read once, hashed on the way, watched for changes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from contextlib import aclosing
from pathlib import Path

import google_crc32c
import pytest
from model_ingest import FileChangedError, LocalFileError
from model_ingest._source import _HASH_BEHIND_CHUNKS, READ_AHEAD_CHUNKS, Chunk, FileSource

CHUNK_BYTES = 1024 * 1024


async def _read(source: FileSource, start: int = 0) -> list[Chunk]:
    return [chunk async for chunk in source.chunks(start, CHUNK_BYTES)]


def _sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


async def test_chunks_checksums_and_digest(big_file: Path):
    async with FileSource(big_file) as source:
        chunks = await _read(source)
        assert b"".join(chunk.data for chunk in chunks) == big_file.read_bytes()
        assert [chunk.offset for chunk in chunks] == [n * CHUNK_BYTES for n in range(6)]
        assert all(chunk.crc32c == google_crc32c.value(bytes(chunk.data)) for chunk in chunks)
        assert source._hashed_bytes == source.size_bytes
        assert await source.digest() == _sha256(big_file)


@pytest.mark.extended_unless("5242897", "1048575")
@pytest.mark.parametrize("start", [0, 1, CHUNK_BYTES - 1, 3 * CHUNK_BYTES + 5, 5 * CHUNK_BYTES + 17])
async def test_a_resume_in_a_fresh_process_hashes_what_it_skips(big_file: Path, start: int):
    async with FileSource(big_file) as source:
        chunks = await _read(source, start)
        assert b"".join(chunk.data for chunk in chunks) == big_file.read_bytes()[start:]
        assert await source.digest() == _sha256(big_file)


async def test_a_resume_before_what_was_hashed_hashes_no_byte_twice(big_file: Path):
    async with FileSource(big_file) as source:
        async with aclosing(source.chunks(0, CHUNK_BYTES)) as chunks:
            await anext(chunks)
            await anext(chunks)
        await _read(source, 100)
        assert await source.digest() == _sha256(big_file)


async def test_hash_first_then_send(big_file: Path):
    async with FileSource(big_file) as source:
        seen: list[int] = []
        await source.hash_to(source.size_bytes, seen.append)
        assert seen[-1] == source.size_bytes
        assert await source.digest() == _sha256(big_file)
        await _read(source)
        assert await source.digest() == _sha256(big_file)


async def test_no_more_than_the_read_ahead_is_held(big_file: Path):
    async with FileSource(big_file) as source, aclosing(source.chunks(0, CHUNK_BYTES)) as chunks:
        await anext(chunks)
        await asyncio.sleep(0.2)
        assert source._hashed_bytes <= READ_AHEAD_CHUNKS * CHUNK_BYTES


async def test_reading_waits_for_a_hasher_that_is_behind(big_file: Path):
    """Else all of a file would wait in memory for it, on a machine whose disk is faster than its sha256."""
    goes_on = threading.Event()

    class SlowHash:
        def update(self, data: memoryview) -> None:
            goes_on.wait()

    async with FileSource(big_file) as source:
        source._hash = SlowHash()  # type: ignore[assignment]
        async with aclosing(source.chunks(0, CHUNK_BYTES)) as chunks:
            for _ in range(_HASH_BEHIND_CHUNKS):
                await anext(chunks)
            third = asyncio.ensure_future(anext(chunks))
            await asyncio.sleep(0.2)
            try:
                assert not third.done()
            finally:
                goes_on.set()
            await third


async def test_reading_is_off_the_loop(big_file: Path, monkeypatch: pytest.MonkeyPatch):
    threads: set[str] = set()
    whole = FileSource._read

    def note(self: FileSource, offset: int, length: int) -> bytes:
        threads.add(threading.current_thread().name)
        return whole(self, offset, length)

    monkeypatch.setattr(FileSource, "_read", note)
    async with FileSource(big_file) as source:
        await _read(source)
        await source.digest()
    assert len(threads) == 1
    assert threads.pop().startswith("model-ingest-read")


async def test_an_empty_file_has_no_chunks(tmp_path: Path):
    (tmp_path / "empty").touch()
    async with FileSource(tmp_path / "empty") as source:
        assert await _read(source) == []
        assert await source.digest() == _sha256(tmp_path / "empty")


async def test_what_is_no_regular_file_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "nothing", "No such file"),
        (tmp_path, "is a directory"),
        (tmp_path / "pipe", "no regular file"),
    ):
        with pytest.raises(LocalFileError, match=words) as caught:
            async with FileSource(path):
                pass
        assert caught.value.exit_code == 2


async def test_a_shorter_file(big_file: Path):
    async with FileSource(big_file) as source:
        os.truncate(big_file, CHUNK_BYTES)
        with pytest.raises(FileChangedError, match="shorter"):
            await _read(source)


@pytest.mark.parametrize("how", ["append", "touch", "replace", "remove"])
async def test_a_changed_file_is_noticed_before_the_digest_is_given(big_file: Path, how: str):
    async with FileSource(big_file) as source:
        await _read(source)
        if how == "append":
            with big_file.open("ab") as file:
                file.write(b"x")
        elif how == "touch":
            os.utime(big_file, ns=(1, 1))
        elif how == "replace":
            other = big_file.with_name("other")
            other.write_bytes(big_file.read_bytes())
            other.replace(big_file)
        else:
            big_file.unlink()
        with pytest.raises(FileChangedError):
            await source.digest()


async def test_cancelled_in_the_middle_the_descriptor_is_closed(big_file: Path):
    async with FileSource(big_file) as source:
        file = source._file
        async with aclosing(source.chunks(0, CHUNK_BYTES)) as chunks:
            await anext(chunks)
    for _ in range(100):
        if file.closed:
            break
        await asyncio.sleep(0.01)
    assert file.closed
