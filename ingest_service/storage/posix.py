"""Blocking file calls, each one small; they run in the executor's threads only."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ingest_service.storage.buffer import Buffer
from ingest_service.telemetry.descriptors import SHORTAGE
from ingest_service.vocabulary.errors import BackendDown, IngestError, StorageFailed, StorageFull, StoreDown

_log = logging.getLogger(__name__)
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: The process or the machine is short of something for the moment; the bytes are where they were.
NOT_NOW = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
#: The data directory does not let us do what we asked; the bytes are where they were.
_REFUSALS = {
    errno.EACCES: "The service's user may not write or read there: give the files back to that user.",
    errno.EPERM: "The service's user may not change the files there: give them back to that user.",
    errno.EROFS: "Its file system is mounted read-only: mount it for writing.",
    errno.ENOENT: "A file or directory of it is missing: mount the right volume, or restore the directory.",
    errno.ENOTDIR: "A file is where one of its directories should be: restore the directory.",
    errno.EISDIR: "A directory is where one of its files should be: move it away.",
    errno.ELOOP: "A link is where one of its files or directories should be: move it away.",
    errno.ESTALE: "Its file system is gone: mount it again.",
    errno.ENODEV: "Its disk is gone: attach and mount it again.",
    errno.ENXIO: "Its disk is gone: attach and mount it again.",
    errno.EBUSY: "A file of it is in use by the system.",
    errno.ETIMEDOUT: "Its disk does not answer in time.",
    errno.ENAMETOOLONG: "Its path is too long for the file system: choose a shorter INGEST_DATA_DIR.",
}
_MAX_VECTORS = 1024


def storage_error(error: OSError, *, is_write: bool = False) -> IngestError:
    """The domain's error for a failed file call. `is_write`: bytes that were not committed are lost by it.

    The message says what an operator has to do; the system's own words go to the log, not to the client.
    """
    number = error.errno or 0
    if number in _NO_ROOM:
        return StorageFull("The store has no room for more bytes.")
    if number in NOT_NOW:
        SHORTAGE.note(error)
        return BackendDown("The service cannot open more files right now; ask again.")
    if number in _REFUSALS:
        return StoreDown(
            f"The data directory cannot be used. {_REFUSALS[number]} Nothing that was committed is lost."
        )
    if is_write:
        return StorageFailed()
    return StorageFailed(
        "The disk of the data directory fails: a file of it cannot be read or moved. The service's log has"
        " the system's words."
    )


def log_failure(what: str, error: OSError) -> None:
    """The system's own words; with the stack only where they are no reason that an operator can remove."""
    is_told = error.errno in _REFUSALS or error.errno in _NO_ROOM or error.errno in NOT_NOW
    _log.error(what, extra={"detail": str(error)}, exc_info=None if is_told else error)


def write_all(descriptor: int, offset: int, buffers: Sequence[Buffer]) -> None:
    """pwritev until everything is written: a short write is legal and is gone on with."""
    views = [memoryview(buffer) for buffer in buffers if len(buffer)]
    first = 0
    while first < len(views):
        written = os.pwritev(descriptor, views[first : first + _MAX_VECTORS], offset)
        if written == 0:
            raise OSError(errno.EIO, "a write wrote nothing")
        offset += written
        while written:
            if written >= len(views[first]):
                written -= len(views[first])
                first += 1
            else:
                views[first] = views[first][written:]
                written = 0


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path, mode: int) -> None:
    """Makes a directory of exactly that mode, durably; an existing one keeps its mode."""
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        if not path.is_dir():
            raise
        # Whoever made it may have been killed before its own sync. An operator's directory can stand in one
        # that we may not read; that one was not made by us.
        with contextlib.suppress(PermissionError):
            sync_directory(path.parent)
        return
    path.chmod(mode)
    sync_directory(path)
    sync_directory(path.parent)


def try_lock(descriptor: int) -> bool:
    """Takes the exclusive lock of an open file; False if another process or descriptor has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def try_shared_lock(descriptor: int) -> bool:
    """Takes the shared lock of an open file; False while somebody has the exclusive one."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_same_file(descriptor: int, path: Path) -> bool:
    """The path still leads to the open file: a lock on a file that was replaced guards nothing."""
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def regular_size_bytes(path: Path) -> int | None:
    """How long a file is; None if there is none, or something else has its name. Follows no link."""
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return there.st_size if stat.S_ISREG(there.st_mode) else None


def forget_cached(descriptor: int, offset: int, size_bytes: int) -> None:
    """Takes a range (size 0: to the end) out of the page cache; pages that a program has mapped stay."""
    if hasattr(os, "posix_fadvise"):
        # Advice only: a file system that does not take it is no fault.
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, offset, size_bytes, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def open_descriptor(path: Path, flags: int, mode: int = 0o600) -> Iterator[int]:
    """An open descriptor that never follows a link planted in the data directory."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes, mode: int) -> None:
    """A small file, complete or not there: temporary name, sync, rename, sync of the directory."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with open_descriptor(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode) as descriptor:
            os.fchmod(descriptor, mode)
            write_all(descriptor, 0, [content])
            os.fsync(descriptor)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
