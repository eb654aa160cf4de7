"""When a file may become a partial without a copy, and what then protects it and the partial.

Breaks when: a file that somebody could write to gets a second name, a reflink is not tried first, the lock of
a shared partial is not there from its first moment, or a partial's bytes can be written through a shared one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest_service.storage import FileExecutor, LocalBlobStore, adopting
from ingest_service.vocabulary.errors import StorageFailed
from tests.storage.conformance import ID, reopened
from tests.storage.sources import at_rest, opened
from tests.support.service import ROOT


@pytest.fixture
def path(data_dir: Path) -> Path:
    return at_rest(data_dir / "import" / "model.gguf", b"whole")


async def adopted(store: LocalBlobStore, path: Path, executor: FileExecutor) -> bool:
    """Whether it was adopted, and foreseen to be."""
    async with opened(path, executor) as source:
        foreseen = await store.adopts(source)
        partial = await store.adopt(ID, source)
        if partial is not None:
            await partial.close()
        assert foreseen is (partial is not None)
        return partial is not None


async def test_a_file_at_rest_gets_a_second_name_where_there_is_no_reflink(
    store: LocalBlobStore, data_dir: Path, path: Path, executor: FileExecutor
) -> None:
    async with opened(path, executor) as source:
        if adopting.can_reflink(source, data_dir / "uploads"):
            pytest.skip("this file system has reflinks")
    assert await adopted(store, path, executor)
    assert (data_dir / "uploads" / f"{ID}.part").stat().st_ino == path.stat().st_ino
    assert [path.name for path in (data_dir / "uploads").glob("[!.]*")] == [f"{ID}.part"]


def second_name(path: Path) -> None:
    os.link(path, path.with_name("other"))


def just_written(path: Path) -> None:
    os.utime(path)


def others(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize("reason", [second_name, just_written, others])
async def test_a_file_that_may_be_written_to_is_not_shared(
    store: LocalBlobStore, data_dir: Path, path: Path, executor: FileExecutor, reason: Callable[[Path], None]
) -> None:
    reason(path)
    async with opened(path, executor) as source:
        assert not adopting.may_share(source, data_dir / "uploads", 5.0)


async def test_a_file_that_is_open_for_writing_or_was_written_to_since_is_not_shared(
    store: LocalBlobStore, data_dir: Path, path: Path, executor: FileExecutor
) -> None:
    then = path.stat()
    async with opened(path, executor) as source:
        with path.open("r+b") as writer:
            assert not adopting.may_share(source, data_dir / "uploads", 5.0)
            assert not adopting.is_at_rest(path, source.identity)
            writer.write(b"W")
        # At rest again, and open for reading by others: but not what was opened.
        os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns + 1))
        assert not adopting.may_share(source, data_dir / "uploads", 5.0)
    async with opened(path, executor) as source, opened(path, executor):
        assert adopting.may_share(source, data_dir / "uploads", 5.0)
        assert adopting.is_at_rest(path, source.identity)


async def test_a_file_that_its_owner_has_locked_is_not_shared(
    store: LocalBlobStore, data_dir: Path, path: Path, executor: FileExecutor
) -> None:
    with path.open("rb") as owner:
        fcntl.flock(owner, fcntl.LOCK_SH)
        async with opened(path, executor) as source:
            assert adopting.share(source, data_dir / "uploads" / f"{ID}.part", 5.0) is None
    assert await store.partial_ids() == []
    assert path.stat().st_nlink == 1


async def test_a_path_that_leads_to_another_file_by_now_is_not_shared(
    store: LocalBlobStore, data_dir: Path, path: Path, executor: FileExecutor
) -> None:
    async with opened(path, executor) as source:
        path.rename(path.with_name("former"))
        at_rest(path, b"other")
        assert adopting.share(source, data_dir / "uploads" / f"{ID}.part", 5.0) is None
    assert await store.partial_ids() == []
    assert path.stat().st_nlink == 1


_OPENED_AMID = """
import fcntl, os, sys
from ingest_service.storage import adopting

real = fcntl.fcntl

def amid(descriptor, command, *rest):
    if rest == (fcntl.F_UNLCK,):
        try:
            os.open(sys.argv[1], os.O_WRONLY | os.O_NONBLOCK)
        except BlockingIOError:
            print("the lease was broken")
    return real(descriptor, command, *rest)

fcntl.fcntl = amid
print(adopting.nobody_writes(os.open(sys.argv[1], os.O_RDONLY)))
"""


def test_whoever_opens_the_file_while_it_is_looked_at_does_not_end_the_process(tmp_path: Path) -> None:
    path = at_rest(tmp_path / "file", b"whole")
    # The kernel sends a signal then: by itself SIGIO, which kills.
    command = [sys.executable, "-c", _OPENED_AMID, str(path)]
    child = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert (child.stdout, child.returncode) == ("the lease was broken\nTrue\n", 0), child.stderr


async def test_a_shared_partial_cannot_be_written_in_place(
    store: LocalBlobStore, data_dir: Path, path: Path, executor: FileExecutor
) -> None:
    async with opened(path, executor) as source:
        if adopting.can_reflink(source, data_dir / "uploads"):
            pytest.skip("this file system has reflinks: nothing is shared")
    assert await adopted(store, path, executor)
    partial = await reopened(store, ID)
    with pytest.raises(StorageFailed):
        await partial.write(0, [b"W"])
    await partial.close()
    assert path.read_bytes() == b"whole"


async def test_what_a_kill_left_behind_is_in_nobodys_way(
    store: LocalBlobStore, data_dir: Path, path: Path, executor: FileExecutor
) -> None:
    os.link(path, data_dir / "uploads" / f"{ID}.adopting")
    (data_dir / "uploads" / f"{ID}.fresh").write_bytes(b"left")
    async with opened(path, executor) as source:
        partial = await store.adopt(ID, source)
    assert partial is not None
    await partial.truncate(0)
    await partial.close()
    assert path.read_bytes() == b"whole"
    assert path.stat().st_nlink == 1


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    """A file system that has reflinks."""
    if os.geteuid() != 0 or shutil.which("mkfs.btrfs") is None:
        pytest.skip("needs root and mkfs.btrfs, to make a file system that has reflinks")
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(150 * 1024 * 1024)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


async def test_a_reflink_is_taken_where_there_is_one_whoever_else_has_the_file(
    btrfs: Path, executor: FileExecutor
) -> None:
    store = LocalBlobStore(btrfs, executor)
    await store.prepare()
    path = at_rest(btrfs / "import" / "model.gguf", b"whole" * 100_000)
    second_name(path)
    assert await adopted(store, path, executor)
    made = btrfs / "uploads" / f"{ID}.part"
    assert made.stat().st_ino != path.stat().st_ino
    # A copy of its own: neither hears of what the other becomes.
    path.write_bytes(b"other")
    assert made.read_bytes() == b"whole" * 100_000
