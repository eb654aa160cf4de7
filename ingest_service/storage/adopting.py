"""Makes a file of somebody else's a partial without copying its bytes: by reflink, else by a second name.

A second name means one copy of the bytes under two names. That is safe only if nobody can write to them:
`may_share` says when, and whoever publishes them looks again (`is_at_rest`) once the first name is out of
reach. Blocking calls, each one small.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from pathlib import Path

from ingest_service.storage import posix
from ingest_service.storage.source_file import FileIdentity, SourceFile
from ingest_service.vocabulary.errors import WriterBusy

_FICLONE = 0x40049409
#: The file systems cannot do it; another way may.
_CANNOT = frozenset(
    {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.EMLINK, errno.ENOSYS,
     errno.EACCES, errno.ENOENT, errno.EROFS}
)  # fmt: skip


def nobody_writes(descriptor: int) -> bool:
    """Nobody has the file open for writing; False also where the system cannot tell.

    A read lease is granted only then. It is let go of at once; who opens the file in between makes the
    kernel send a signal, by default one that ends the process: ours is one that does nothing.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def may_share(source: SourceFile, directory: Path, settle_seconds: float) -> bool:
    """The file can get a second name in the directory, and nobody is known to be able to write to it then.

    Ours: another owner could open it for writing at any time. One name: another name would stay open to
    writers. At rest for a while, and no writer: else it is still being copied there.
    """
    found = os.fstat(source.descriptor)
    return (
        found.st_dev == directory.stat().st_dev
        and found.st_uid == os.geteuid()
        and found.st_nlink == 1
        and time.time() - found.st_mtime >= settle_seconds
        and FileIdentity.of(found) == source.identity
        and nobody_writes(source.descriptor)
    )


def is_at_rest(path: Path, identity: FileIdentity) -> bool:
    """The file of that name is still exactly that one, and nobody can write to it by a name it had before."""
    with posix.open_descriptor(path, os.O_RDONLY) as descriptor:
        return FileIdentity.of(os.fstat(descriptor)) == identity and nobody_writes(descriptor)


def can_reflink(source: SourceFile, directory: Path) -> bool:
    """Tried with a file without a name: none is left behind, whatever comes."""
    try:
        with posix.open_descriptor(directory, os.O_RDWR | os.O_TMPFILE) as made:
            return reflink(source.descriptor, made)
    except OSError as error:
        if error.errno not in _CANNOT | {errno.EISDIR}:
            raise
        return False


def reflink(source: int, made: int) -> bool:
    """Gives `made` the content of `source`; each then goes its own way. False where that cannot be done."""
    try:
        fcntl.ioctl(made, _FICLONE, source)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


def share(source: SourceFile, path: Path, settle_seconds: float) -> int | None:
    """`path` becomes a second name of the file: a locked descriptor that cannot write; None if it may not.

    Raises WriterBusy if there is a file of that name.
    """
    temporary = path.with_suffix(".adopting")
    # Of one who was killed here; it would count as another name below.
    temporary.unlink(missing_ok=True)
    if not may_share(source, path.parent, settle_seconds):
        return None
    try:
        os.link(source.path, temporary, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return None
    try:
        return _locked(source, temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _locked(source: SourceFile, temporary: Path, path: Path) -> int | None:
    descriptor = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        # The path may have led to another file by now; another may have linked it, or lock it, as well.
        is_ours = FileIdentity.of(found) == source.identity and found.st_nlink == 2
        if not is_ours or not posix.try_lock(descriptor):
            os.close(descriptor)
            return None
        # Locked before it has the name that boots and sweeps look for.
        os.link(temporary, path)
    except FileExistsError:
        os.close(descriptor)
        raise WriterBusy from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def replace_by_empty(descriptor: int, path: Path) -> None:
    """`path`, and the open and locked `descriptor`, become a new empty file; whoever else has the old one by
    another name keeps it whole.
    """
    temporary = path.with_suffix(".fresh")
    temporary.unlink(missing_ok=True)
    with posix.open_descriptor(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fresh:
        posix.try_lock(fresh)
        temporary.rename(path)
        os.dup2(fresh, descriptor, inheritable=False)
