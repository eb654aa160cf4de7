"""The digests of files that were hashed before, so that pushing one again reads nothing.

One small file for each path, beside the memory of unfinished pushes (`_memory`): processes that run at the
same time replace whole files and never each other's. An entry counts only for the very same file: device,
inode, size and both times. All calls block: they run in a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final

from model_ingest._memory import state_directory
from model_ingest._source import Fingerprint

MAX_ENTRIES: Final = 1000
#: FAT tells times in steps of 2 s, everything else in smaller ones.
GRANULARITY_NS: Final = 2_000_000_000
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class DigestCache:
    """What is remembered. A state directory that cannot be used only costs the memory."""

    def known(self, path: Path, fingerprint: Fingerprint) -> str:
        """The file's digest, or ""."""
        place = _place(path)
        try:
            entry = json.loads(place.read_text(encoding="utf-8"))
            checked_ns, digest = entry["checked_ns"], entry["sha256"]
            is_same = entry["fingerprint"] == list(astuple(fingerprint))
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        if not (is_same and isinstance(checked_ns, int) and isinstance(digest, str)):
            return ""
        if not _DIGEST.fullmatch(digest) or not _can_be_told(fingerprint, checked_ns):
            return ""
        with contextlib.suppress(OSError):
            # The oldest go first when there are too many: this one is in use.
            os.utime(place)
        return digest

    def keep(self, path: Path, fingerprint: Fingerprint, digest: str, checked_ns: int) -> None:
        """Remembers the digest of a file that was still unchanged at `checked_ns` (wall clock)."""
        if not _can_be_told(fingerprint, checked_ns):
            return
        entry = {"fingerprint": astuple(fingerprint), "checked_ns": checked_ns, "sha256": digest}
        place = _place(path)
        with contextlib.suppress(OSError):
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(place, entry)
            _remove_beyond(place.parent, MAX_ENTRIES)

    def forget(self, path: Path) -> None:
        """It was wrong."""
        with contextlib.suppress(OSError):
            _place(path).unlink(missing_ok=True)


def _can_be_told(fingerprint: Fingerprint, checked_ns: int) -> bool:
    """Whether a write after `checked_ns` would have shown: within one step of the clock, it would not."""
    return checked_ns - fingerprint.modified_ns > GRANULARITY_NS


def _place(path: Path) -> Path:
    key = hashlib.sha256(str(path.absolute()).encode(errors="surrogateescape")).hexdigest()
    return state_directory() / f"digest-{key}.json"


def _write(place: Path, entry: dict[str, Any]) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".digest-", dir=place.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(entry, file)
        Path(name).replace(place)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _remove_beyond(directory: Path, most: int) -> None:
    """The longest unused; what writers that were killed left as well, since it is only ever older."""
    found = list(directory.glob("*digest-*"))
    if len(found) <= most:
        return
    ages: list[tuple[float, Path]] = []
    for path in found:
        # Each by itself: another push may be doing the same.
        with contextlib.suppress(OSError):
            ages.append((path.stat().st_mtime, path))
    for _, path in sorted(ages)[: len(found) - most]:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
