"""Writes past the page cache and beside it: the same bytes, whatever way they are cut."""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_service.storage import DirectIo, FileExecutor, LocalBlobStore, direct
from ingest_service.storage.direct import BLOCK_BYTES
from ingest_service.vocabulary.errors import StorageFailed, StorageFull
from tests.storage.conformance import ID
from tests.storage.resident import keeps_files_in_memory, resident_bytes
from tests.storage.sources import at_rest, opened

MEBIBYTE = 1024 * 1024
DATA = random.Random(7).randbytes(5 * MEBIBYTE)


@pytest.fixture(params=[DirectIo.AUTO, DirectIo.OFF])
def mode(request: pytest.FixtureRequest) -> DirectIo:
    return DirectIo(request.param)


async def store_in(directory: Path, executor: FileExecutor, mode: DirectIo) -> LocalBlobStore:
    store = LocalBlobStore(directory, executor, direct_io=mode)
    await store.prepare()
    if mode is DirectIo.AUTO and not await store.takes_direct_writes():
        pytest.skip("the file system of the temporary directory takes no direct writes")
    return store


class Writes:
    """The system's writes, by whether they went past the page cache: (offset, size)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.direct: list[tuple[int, int]] = []
        self.buffered: list[tuple[int, int]] = []
        real = os.pwritev

        def pwritev(descriptor: int, buffers: Any, offset: int) -> int:
            written = real(descriptor, buffers, offset)
            (self.direct if is_direct(descriptor) else self.buffered).append((offset, written))
            return written

        monkeypatch.setattr(os, "pwritev", pwritev)


def is_direct(descriptor: int) -> bool:
    flags = Path(f"/proc/self/fdinfo/{descriptor}").read_text().split("flags:")[1].split()[0]
    return bool(int(flags, 8) & os.O_DIRECT)


@given(
    start=st.integers(0, 3 * BLOCK_BYTES),
    cuts=st.lists(st.integers(1, MEBIBYTE), min_size=1, max_size=8),
    batch=st.integers(1, 4),
    mode=st.sampled_from([DirectIo.AUTO, DirectIo.OFF]),
)
@settings(max_examples=25, deadline=None)
def test_any_cut_and_any_start_give_the_same_file(
    start: int, cuts: list[int], batch: int, mode: DirectIo
) -> None:
    async def run(directory: Path) -> None:
        executor = FileExecutor(2)
        store = await store_in(directory, executor, mode)
        partial = await store.create_partial(ID)
        # As after a crash: something behind what is committed, then cut, at a size of any kind.
        await partial.write(0, [DATA[:start], b"to be cut"])
        await partial.truncate(start)
        at = start
        for number in range(0, len(cuts), batch):
            chunks = []
            for size in cuts[number : number + batch]:
                chunks.append(memoryview(DATA)[at : at + size])
                at += len(chunks[-1])
            await partial.write(at - sum(map(len, chunks)), chunks)
            # Another reader sees every byte that `write` has returned for.
            async with store.read_partial(ID) as reader:
                assert reader.size_bytes == at
                assert await reader.read(max(at - MEBIBYTE, 0), MEBIBYTE) == DATA[max(at - MEBIBYTE, 0) : at]
        assert await partial.read(0, at + 1) == DATA[:at]
        await partial.sync()
        await partial.close()
        assert (directory / "uploads" / f"{ID}.part").read_bytes() == DATA[:at]
        executor.close()

    with tempfile.TemporaryDirectory() as name:
        asyncio.run(run(Path(name)))


async def test_whole_blocks_go_past_the_page_cache_and_the_rest_beside_it(
    data_dir: Path, executor: FileExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await store_in(data_dir, executor, DirectIo.AUTO)
    partial = await store.create_partial(ID)
    writes = Writes(monkeypatch)
    await partial.write(0, [DATA[:100], DATA[100 : 2 * MEBIBYTE + 100]])
    assert writes.direct == [(0, MEBIBYTE), (MEBIBYTE, MEBIBYTE)]
    assert writes.buffered == [(2 * MEBIBYTE, 100)]
    writes.direct.clear()
    writes.buffered.clear()
    # The block that was begun is ended in the same way: none is written in both.
    await partial.write(2 * MEBIBYTE + 100, [DATA[2 * MEBIBYTE + 100 : 3 * MEBIBYTE]])
    assert writes.buffered == [(2 * MEBIBYTE + 100, BLOCK_BYTES - 100)]
    assert writes.direct == [(2 * MEBIBYTE + BLOCK_BYTES, MEBIBYTE - BLOCK_BYTES)]
    await partial.close()


async def test_little_is_not_worth_the_way_to_the_device(
    data_dir: Path, executor: FileExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await store_in(data_dir, executor, DirectIo.AUTO)
    partial = await store.create_partial(ID)
    writes = Writes(monkeypatch)
    await partial.write(0, [DATA[: 64 * 1024]])
    assert writes.direct == []
    assert writes.buffered == [(0, 64 * 1024)]
    await partial.close()


async def test_off_means_off(data_dir: Path, executor: FileExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await store_in(data_dir, executor, DirectIo.OFF)
    partial = await store.create_partial(ID)
    writes = Writes(monkeypatch)
    await partial.write(0, [DATA])
    assert writes.direct == []
    assert sum(size for _, size in writes.buffered) == len(DATA)
    await partial.close()


@pytest.mark.parametrize("where", ["open", "write"])
async def test_a_file_system_that_refuses_gets_buffered_writes_and_the_partial_is_well(
    data_dir: Path, executor: FileExecutor, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    store = await store_in(data_dir, executor, DirectIo.AUTO)
    partial = await store.create_partial(ID)
    real_open, real_write = os.open, os.pwritev
    refused = 0

    def refusing_open(path: Any, flags: int, *rest: Any) -> int:
        nonlocal refused
        if where == "open" and flags & os.O_DIRECT:
            refused += 1
            raise OSError(errno.EINVAL, "Invalid argument")
        return real_open(path, flags, *rest)

    def refusing_write(descriptor: int, buffers: Any, offset: int) -> int:
        nonlocal refused
        if where == "write" and is_direct(descriptor):
            refused += 1
            raise OSError(errno.EINVAL, "Invalid argument")
        return real_write(descriptor, buffers, offset)

    monkeypatch.setattr(os, "open", refusing_open)
    monkeypatch.setattr(os, "pwritev", refusing_write)
    await partial.write(0, [DATA[: 2 * MEBIBYTE]])
    await partial.write(2 * MEBIBYTE, [DATA[2 * MEBIBYTE :]])
    await partial.sync()
    assert refused == 1
    assert await partial.read(0, len(DATA)) == DATA
    assert not await store.takes_direct_writes()
    await partial.close()


async def test_a_short_direct_write_is_gone_on_with_and_no_room_is_said_as_such(
    data_dir: Path, executor: FileExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await store_in(data_dir, executor, DirectIo.AUTO)
    partial = await store.create_partial(ID)
    real = os.pwritev
    shorts: Iterator[int] = iter([1000, BLOCK_BYTES])

    def short(descriptor: int, buffers: Any, offset: int) -> int:
        if not is_direct(descriptor):
            return real(descriptor, buffers, offset)
        size = next(shorts, None)
        if size is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.pwrite(partial._descriptor, buffers[0][:size], offset)  # type: ignore[attr-defined]

    monkeypatch.setattr(os, "pwritev", short)
    await partial.write(0, [DATA[: 2 * MEBIBYTE]])
    assert await partial.read(0, 2 * MEBIBYTE) == DATA[: 2 * MEBIBYTE]
    with pytest.raises(StorageFull):
        await partial.write(2 * MEBIBYTE, [DATA[2 * MEBIBYTE :]])
    await partial.close()


async def test_an_upload_leaves_next_to_nothing_in_the_page_cache(
    data_dir: Path, executor: FileExecutor, mode: DirectIo
) -> None:
    if keeps_files_in_memory(data_dir):
        pytest.skip("the file system of the temporary directory is in memory")
    store = await store_in(data_dir, executor, mode)
    partial = await store.create_partial(ID)
    # The last of them are not enough to be sent on before the sync.
    size = 28 * MEBIBYTE
    for at in range(0, size, 4 * MEBIBYTE):
        await partial.write(at, [DATA[: 4 * MEBIBYTE]])
    await partial.write(size, [b"the rest"])
    await partial.sync()
    path = data_dir / "uploads" / f"{ID}.part"
    assert resident_bytes(path) <= MEBIBYTE
    # Read back as the hasher of a restarted process does.
    for at in range(0, size, 4 * MEBIBYTE):
        assert await partial.read(at, 4 * MEBIBYTE) == DATA[: 4 * MEBIBYTE]
    assert resident_bytes(path) <= MEBIBYTE
    await partial.close()


async def test_a_file_of_somebody_elses_is_not_written_past_the_page_cache_either(
    data_dir: Path, executor: FileExecutor, tmp_path: Path
) -> None:
    """Adopted under a second name it is open for reading only; by its path it could be written."""
    store = await store_in(data_dir, executor, DirectIo.AUTO)
    theirs = at_rest(tmp_path / "theirs", DATA)
    async with opened(theirs, executor) as source:
        partial = await store.adopt(ID, source)
    assert partial is not None
    # A reflink is ours to write; one file with two names is not.
    if (data_dir / "uploads" / f"{ID}.part").stat().st_ino == theirs.stat().st_ino:
        with pytest.raises(StorageFailed):
            await partial.write(0, [bytes(MEBIBYTE)])
        await partial.close()
        partial = await store.open_partial(ID)
        assert partial is not None
    # Cut, it is an empty file of our own, and written like any other.
    await partial.truncate(0)
    await partial.write(0, [bytes(MEBIBYTE)])
    assert theirs.read_bytes() == DATA
    assert await partial.read(0, MEBIBYTE) == bytes(MEBIBYTE)
    await partial.close()


async def test_memory_that_lies_as_in_the_file_is_written_from_where_it_is(
    tmp_path: Path, executor: FileExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And memory that does not is copied first, instead of being refused by the file system."""
    store = await store_in(tmp_path, executor, DirectIo.AUTO)
    copied: list[int] = []
    real = direct._Source.copy

    def copy(source: Any, target: memoryview) -> None:
        copied.append(len(target))
        real(source, target)

    monkeypatch.setattr(direct._Source, "copy", copy)
    writes = Writes(monkeypatch)
    partial = await store.create_partial(ID)
    memory = memoryview(mmap.mmap(-1, 2 * MEBIBYTE + 2 * BLOCK_BYTES))
    memory[:] = DATA[: len(memory)]
    # Begins and ends within a block, in memory as in the file.
    await partial.write(0, [memory[:100]])
    await partial.write(100, [memory[100 : 2 * MEBIBYTE + 5]])
    assert not copied
    assert writes.direct == [(BLOCK_BYTES, 2 * MEBIBYTE - BLOCK_BYTES)]
    end = 2 * MEBIBYTE + 5
    await partial.write(end, [memory[6 : 6 + MEBIBYTE]])
    assert copied
    await partial.write(end + MEBIBYTE, [memory[:MEBIBYTE]])
    assert [size for _, size in writes.direct][1:] == [MEBIBYTE - BLOCK_BYTES] * 2
    data = await partial.read(0, 10 * MEBIBYTE)
    assert data == DATA[:end] + DATA[6 : 6 + MEBIBYTE] + DATA[:MEBIBYTE]
    await partial.close()
