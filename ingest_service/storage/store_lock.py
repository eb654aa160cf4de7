"""Who works on a store at all: many services together, or one rebuild alone.

The kernel lets go of the lock when its process ends, however it ends. The database cannot tell this: the one
that a running service uses may be the one that was lost.
"""

from __future__ import annotations

import os
from pathlib import Path

from ingest_service.storage import posix


class StoreLock:
    """The file `uploads/.locks/in-use`, locked from `take` to `release`. Blocking calls, each a short one."""

    def __init__(self, data_directory: Path) -> None:
        self._path = data_directory / "uploads" / ".locks" / "in-use"
        self._descriptor: int | None = None

    def take(self, *, alone: bool) -> bool:
        """False if another process has it in a way that does not go with this. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        taken = posix.try_lock(descriptor) if alone else posix.try_shared_lock(descriptor)
        if not taken:
            os.close(descriptor)
            return False
        self.release()
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """May be repeated."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
