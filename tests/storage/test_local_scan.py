"""Scans of the local store disturb nobody: lowest priority, one buffer, nothing left in the page cache."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
from pathlib import Path

import pytest

from ingest_service.storage import LocalScanner, local_scan
from ingest_service.vocabulary.errors import (
    BlobCorrupt,
    StoreDown,
)
from tests.support.files import digest

DATA = os.urandom(1_000_003)
PIECE = 64 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    path = blobs / digest(DATA).replace(":", "-")
    with path.open("wb") as file:
        file.write(DATA)
        os.fsync(file.fileno())
    return path


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_scan, "_PIECE_BYTES", PIECE)


async def scan(tmp_path: Path) -> list[int]:
    """The sizes of the pieces of a whole scan."""
    scanner = LocalScanner(tmp_path)
    sizes = []
    try:
        async with scanner.open(digest(DATA)) as opened:
            assert opened.size_bytes == len(DATA)
            while count := await opened.hash_next():
                sizes.append(count)
            assert opened.digest() == digest(DATA)
            assert await opened.is_current()
    finally:
        scanner.close()
    return sizes


async def test_it_reads_every_byte_in_small_pieces(path: Path, tmp_path: Path) -> None:
    sizes = await scan(tmp_path)
    assert sum(sizes) == len(DATA)
    assert max(sizes) == PIECE


async def test_it_says_when_another_file_has_the_name(path: Path, tmp_path: Path) -> None:
    scanner = LocalScanner(tmp_path)
    async with scanner.open(digest(DATA)) as opened:
        (path.parent / "new").write_bytes(DATA)
        (path.parent / "new").rename(path)
        assert not await opened.is_current()
        path.unlink()
        assert not await opened.is_current()
    scanner.close()


async def test_what_cannot_be_opened(path: Path, tmp_path: Path) -> None:
    scanner = LocalScanner(tmp_path)
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(BlobCorrupt):
        async with scanner.open(digest(DATA)):
            pass
    path.symlink_to(path.with_name("elsewhere"))
    with pytest.raises(StoreDown, match="A link is where"):
        async with scanner.open(digest(DATA)):
            pass
    with pytest.raises(ValueError, match="digests"):
        async with scanner.open("sha256:../../x"):
            pass
    scanner.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
async def test_its_thread_has_the_lowest_priority_and_no_other_thread_has(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    real = local_scan._read_into

    def looking(descriptor: int, buffer: memoryview, offset: int) -> int:
        thread = threading.get_native_id()
        seen.add((thread, os.getpriority(os.PRIO_PROCESS, thread)))
        return real(descriptor, buffer, offset)

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    monkeypatch.setattr(local_scan, "_read_into", looking)
    await scan(tmp_path)
    ((thread, priority),) = seen
    assert thread != threading.get_native_id()
    assert priority == 19
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before != 19


def cached_pages(path: Path) -> int:
    """Pages of the file that are in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        pages = -(-len(mapped) // mmap.PAGESIZE)
        vector = (ctypes.c_ubyte * pages)()
        anchor = ctypes.c_char.from_buffer(mapped)
        address = ctypes.c_void_p(ctypes.addressof(anchor))
        assert libc.mincore(address, ctypes.c_size_t(len(mapped)), vector) == 0
        del anchor
        return sum(one & 1 for one in vector)


@pytest.mark.skipif(sys.platform != "linux", reason="mincore")
async def test_it_leaves_nothing_in_the_page_cache(path: Path, tmp_path: Path) -> None:
    path.read_bytes()
    assert cached_pages(path) > 200, "not a file system with a page cache of its own?"
    await scan(tmp_path)
    assert cached_pages(path) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="mincore")
async def test_what_a_program_has_mapped_stays(path: Path, tmp_path: Path) -> None:
    """As a running model is mapped."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) >= 0
        await scan(tmp_path)
        assert cached_pages(path) > 200
