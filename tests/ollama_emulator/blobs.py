"""The blob directory, laid out as Ollama lays it out (contract sections 2 and 4)."""

from __future__ import annotations

import hashlib
import os
import random
import re
import threading
import time
from pathlib import Path
from typing import BinaryIO

_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}\Z")
_FILE = re.compile(r"sha256-[0-9a-fA-F]{64}\Z")


class InvalidDigest(Exception):
    def __init__(self) -> None:
        super().__init__("invalid digest format")


def missing(path: Path) -> str:
    """Go's text for opening a file that is not there."""
    return f"open {path}: no such file or directory"


class Temp:
    """A blob on its way in: hashed while written, renamed at the end. All calls block."""

    def __init__(self, folder: Path, prefix: str = "sha256-") -> None:
        self._lock = threading.Lock()  # an abort must not close the file under a writing thread
        while True:
            self.path = folder / f"{prefix}{random.randrange(10**9, 10**10)}"
            try:
                number = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
                break
            except FileExistsError:
                continue
        self._file: BinaryIO = os.fdopen(number, "wb", buffering=0)
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        with self._lock:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
            self._hash.update(data)
            self.size += len(data)
            return len(data)

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def discard(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)


class Blobs:
    """Blobs by digest. `in` and iteration look at the disk, never at a cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)

    def path(self, digest: str) -> Path:
        """Either separator, either case, the hex as given."""
        if not _DIGEST.match(digest):
            raise InvalidDigest
        return self.folder / digest.replace(":", "-")

    def __contains__(self, digest: object) -> bool:
        # os.Stat only: a truncated file, or a directory, counts as present.
        return isinstance(digest, str) and self.path(digest).exists()

    def _names(self) -> list[str]:
        return [entry.name for entry in self.folder.iterdir()]

    def digests(self) -> set[str]:
        return {name.replace("-", ":", 1) for name in self._names() if _FILE.match(name)}

    def temps(self) -> list[Path]:
        """Everything in the folder that is no blob: uploads under way, leaked temporaries."""
        return [self.folder / name for name in self._names() if not _FILE.match(name)]

    def size(self, digest: str) -> int:
        return self.path(digest).stat().st_size

    def read(self, digest: str) -> bytes:
        return self.path(digest).read_bytes()

    def sha256(self, digest: str) -> str:
        """The digest of what is really on disk under that name."""
        with self.path(digest).open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()

    def temp(self, prefix: str = "sha256-") -> Temp:
        return Temp(self.folder, prefix)

    def keep(self, temp: Temp) -> tuple[str, bool]:
        """`NewLayer`: renames to the computed digest unless somebody was first; returns the
        digest and whether the blob is new. Blocking."""
        temp.close()
        target = self.path(temp.digest)
        created = not target.exists()
        if created:
            temp.path.rename(target)
            target.chmod(0o644)
        else:
            temp.path.unlink(missing_ok=True)
        self.touch(temp.digest)
        return temp.digest, created

    def add(self, data: bytes) -> str:
        """Puts a blob there as if it had been uploaded."""
        temp = self.temp()
        temp.write(data)
        return self.keep(temp)[0]

    def touch(self, digest: str, age_seconds: float = 0) -> None:
        when = time.time() - age_seconds
        os.utime(self.path(digest), (when, when))

    def remove(self, digest: str) -> None:
        self.path(digest).unlink(missing_ok=True)

    def truncate(self, digest: str, size: int) -> None:
        """Breaks a blob so that HEAD still says 200: content is never verified again."""
        os.truncate(self.path(digest), size)

    def prune(self, used: set[str], grace_seconds: float) -> list[str]:
        """What happens at start-up: unreferenced blobs and temporaries past the grace go."""
        removed = []
        for entry in list(self.folder.iterdir()):
            digest = entry.name.replace("-", ":", 1)
            if not entry.is_file() or digest in used:
                continue
            if time.time() - entry.stat().st_mtime >= grace_seconds:
                entry.unlink(missing_ok=True)
                removed.append(digest)
        return sorted(removed)
