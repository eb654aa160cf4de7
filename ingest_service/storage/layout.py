"""The data directory as a whole: what it consists of, and why it cannot be used."""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path

from ingest_service.storage.posix import make_directory
from ingest_service.vocabulary.errors import StorageFull

_DATABASE = "ingest.db"
#: Of these nobody but our own user may read anything: partials, events and prompts, who locks what.
_PRIVATE = {
    "uploads": 0o700,
    "uploads/.locks": 0o700,
    "quarantine": 0o700,
    "store-id": 0o600,
    _DATABASE: 0o600,
    f"{_DATABASE}-wal": 0o600,
    f"{_DATABASE}-shm": 0o600,
}
#: Open to readers: other programs read the models.
_OPEN = ("blobs", "import")
_log = logging.getLogger(__name__)
_USER = "this user (uid {uid})"
_REMEDIES = {
    errno.EACCES: "give it to {user}, and let that user write and look into it.",
    errno.EPERM: "give it to {user}.",
    errno.EROFS: "its file system is mounted read-only: mount it for writing.",
    errno.ENOSPC: "make room on its disk.",
    errno.EDQUOT: "raise the quota of {user}, or make room.",
    errno.ENOTDIR: "a file is where a directory should be: move the file away, or name another directory.",
    errno.EEXIST: "a file is where a directory should be: move the file away, or name another directory.",
    errno.ELOOP: "a link is where one of its directories should be: move it away.",
}


def make_data_directory(directory: Path) -> None:
    """Makes it with `import/`, and what is missing above it. Raises OSError."""
    missing = [parent for parent in directory.parents if not parent.exists()]
    for path in [*reversed(missing), directory]:
        make_directory(path, 0o755)
    make_directory(directory / "import", 0o755)


class UnsafeLayout(Exception):
    """The data directory could be changed by others; the message says how to mend it, in one line."""


def secure_layout(directory: Path) -> None:
    """Refuses what others may write or have replaced by a link; takes others' rights off what is private.

    What belongs to another user (root's volume that our group may write) is left as it is. Raises
    UnsafeLayout, OSError.
    """
    _refuse_writable(directory, directory.stat(), f"INGEST_DATA_DIR {directory}")
    for name in (*_PRIVATE, *_OPEN):
        path = directory / name
        try:
            found = path.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        shown = f"INGEST_DATA_DIR {directory}: {path}"
        if stat.S_ISLNK(found.st_mode):
            raise UnsafeLayout(
                f"{shown} is a symbolic link, and whoever can change it decides where bytes go: put the"
                " directory or file itself there, or mount a volume at INGEST_DATA_DIR."
            )
        if name != "import":
            _refuse_writable(path, found, shown)
        elif found.st_mode & stat.S_IWOTH:
            _log.warning("anybody may put files into the import folder", extra={"path": str(path)})
        mode = _PRIVATE.get(name)
        if mode is not None and found.st_uid == os.geteuid() and found.st_mode & 0o077:
            path.chmod(mode)
            was = oct(stat.S_IMODE(found.st_mode))
            _log.info("made private", extra={"path": str(path), "was": was, "is": oct(mode)})


def _refuse_writable(path: Path, found: os.stat_result, shown: str) -> None:
    if found.st_mode & stat.S_IWOTH:
        raise UnsafeLayout(
            f"{shown} can be written by every user here ({oct(stat.S_IMODE(found.st_mode))}): look at"
            f" what is in it, then take that right away with `chmod o-w {path}`."
        )


def why_directory_unusable(directory: Path, error: BaseException) -> str:
    """One line: which file or directory of it, what the system says, what to do."""
    inner = error
    while (deeper := inner.__cause__) is not None:
        inner = deeper
    number = inner.errno if isinstance(inner, OSError) else None
    place = inner.filename if isinstance(inner, OSError) and isinstance(inner.filename, str) else None
    # A temporary name tells nobody anything: the directory that it is in does.
    shown = Path(place) if place else directory
    if shown.name.startswith("."):
        shown = shown.parent
    if isinstance(error, StorageFull):
        number = errno.ENOSPC
    cause = os.strerror(number) if number else str(inner) or type(inner).__name__
    remedy = _REMEDIES.get(number or 0, "make it a directory that {user} may write, with room on its disk.")
    where = "" if shown == directory else f" in {shown}"
    return (
        f"INGEST_DATA_DIR {directory} cannot be written ({cause}{where}): "
        f"{remedy.format(user=_USER.format(uid=os.geteuid()))}"
    )
