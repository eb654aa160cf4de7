"""Zero-copy placing: the right bytes under the right name, whatever lies there, and nothing left over.

Breaks when: a file of the same name is believed, a hardlink's or a copy's failure ends the way, the time is
not fresh, or a temporary file stays.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from ingest_service.storage import FileExecutor, LocalBlobStore, NotPlaced, PlacedBy
from ingest_service.storage.placing import Placing
from tests.storage.conformance import digest, stored

DATA = bytes(range(256)) * 5000
NAME = digest(DATA).replace(":", "-")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalBlobStore]:
    executor = FileExecutor(2)
    made = LocalBlobStore(tmp_path / "data", executor)
    (tmp_path / "data").mkdir()
    await made.prepare()
    await stored(made, "a" * 24, DATA)
    yield made
    executor.close()


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    directory = tmp_path / "models" / "blobs"
    directory.mkdir(parents=True)
    return directory


def nothing(_done: int) -> None: ...


def cannot(code: int) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return call


def only(monkeypatch: pytest.MonkeyPatch, how: PlacedBy) -> None:
    """The file systems here can do that, and no cheaper way."""
    if how in {PlacedBy.HARDLINK, PlacedBy.COPY}:
        monkeypatch.setattr("fcntl.ioctl", cannot(errno.EOPNOTSUPP))
    if how is PlacedBy.COPY:
        monkeypatch.setattr("os.link", cannot(errno.EXDEV))


@pytest.mark.parametrize("how", [PlacedBy.HARDLINK, PlacedBy.COPY])
async def test_each_way_brings_the_bytes(
    how: PlacedBy, store: LocalBlobStore, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, how)
    told: list[int] = []
    assert await store.place_blob(digest(DATA), blobs, told.append) is how
    placed = blobs / NAME
    assert [path.name for path in blobs.iterdir()] == [NAME]
    assert placed.read_bytes() == DATA
    assert placed.stat().st_mode & 0o777 == 0o644
    assert abs(placed.stat().st_mtime - time.time()) < 60
    source = blobs.parent.parent / "data" / "blobs" / NAME
    assert (source.stat().st_ino == placed.stat().st_ino) == (how is PlacedBy.HARDLINK)
    assert told == ([len(DATA)] if how is PlacedBy.COPY else [])
    # Again: it is there, and compared.
    assert await store.place_blob(digest(DATA), blobs, nothing) is PlacedBy.PRESENT


async def test_the_first_way_that_works_is_taken(store: LocalBlobStore, blobs: Path) -> None:
    # Which one depends on the file system below: reflink on btrfs and xfs, else a hardlink.
    assert await store.place_blob(digest(DATA), blobs, nothing) in {PlacedBy.REFLINK, PlacedBy.HARDLINK}
    assert (blobs / NAME).read_bytes() == DATA


async def test_a_copy_without_copy_file_range(
    store: LocalBlobStore, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, PlacedBy.COPY)
    monkeypatch.setattr("os.copy_file_range", cannot(errno.EXDEV))
    assert await store.place_blob(digest(DATA), blobs, nothing) is PlacedBy.COPY
    assert (blobs / NAME).read_bytes() == DATA


def rotten(path: Path) -> None:
    path.write_bytes(b"x" + DATA[1:])


def short(path: Path) -> None:
    path.write_bytes(DATA[:-1])


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("planted", [rotten, short, link])
async def test_what_lies_there_under_the_name_is_not_believed(
    planted: Callable[[Path], None], store: LocalBlobStore, blobs: Path
) -> None:
    planted(blobs / NAME)
    assert await store.place_blob(digest(DATA), blobs, nothing) is not PlacedBy.PRESENT
    assert (blobs / NAME).read_bytes() == DATA
    assert not (blobs / NAME).is_symlink()
    assert Path("/etc/passwd").read_bytes() != DATA


async def test_a_right_one_gets_a_fresh_time(store: LocalBlobStore, blobs: Path) -> None:
    (blobs / NAME).write_bytes(DATA)
    os.utime(blobs / NAME, (1, 1))
    assert await store.place_blob(digest(DATA), blobs, nothing) is PlacedBy.PRESENT
    assert time.time() - (blobs / NAME).stat().st_mtime < 60


@pytest.mark.parametrize("broken", ["fsync", "rename"])
async def test_a_fault_leaves_no_file_behind(
    broken: str, store: LocalBlobStore, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken == "fsync":
        monkeypatch.setattr("os.fsync", cannot(errno.EIO))
    else:
        monkeypatch.setattr(Path, "rename", cannot(errno.EIO))
    with pytest.raises(NotPlaced):
        await store.place_blob(digest(DATA), blobs, nothing)
    assert list(blobs.iterdir()) == []


async def test_a_directory_that_is_not_ours_or_not_there(
    store: LocalBlobStore, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotPlaced, match="looked at"):
        await store.place_blob(digest(DATA), blobs / "none", nothing)
    (blobs / "file").write_bytes(b"")
    with pytest.raises(NotPlaced, match="no directory"):
        await store.place_blob(digest(DATA), blobs / "file", nothing)
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 4711)
    with pytest.raises(NotPlaced, match="belongs to user"):
        await store.place_blob(digest(DATA), blobs, nothing)
    assert [path.name for path in blobs.iterdir()] == ["file"]


async def test_a_placing_that_is_cancelled_leaves_no_file_behind(
    store: LocalBlobStore, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, PlacedBy.COPY)
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()
    real = Placing._copy_step

    def slow(self: Placing, offset: int) -> int:
        loop.call_soon_threadsafe(reached.set)
        time.sleep(0.2)
        return real(self, offset)

    monkeypatch.setattr(Placing, "_copy_step", slow)
    placing = asyncio.create_task(store.place_blob(digest(DATA), blobs, nothing))
    await reached.wait()
    placing.cancel()
    await asyncio.gather(placing, return_exceptions=True)
    assert list(blobs.iterdir()) == []
