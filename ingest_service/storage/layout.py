"""The data directory as a whole: what it consists of, and why it cannot be used."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ingest_service.storage.posix import make_directory
from ingest_service.vocabulary.errors import StorageFull

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
