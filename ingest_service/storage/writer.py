"""Writes a partial in the way that its file system takes best, and leaves no more of it in the page cache
than what is on its way to the disk: 40 GB that nobody reads twice must not push out a model that runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ingest_service.storage import posix
from ingest_service.storage.buffer import Buffer
from ingest_service.storage.direct import DirectIo, DirectWriter

#: Buffered bytes are sent to the disk in steps of this size, so that a sync finds little left to do.
_BEHIND_BYTES = 8 * 1024 * 1024


class Writer:
    """Of one open file. Blocking calls: one `write` at a time, with `synced` beside it."""

    def __init__(self, descriptor: int, path: Path, direct_io: DirectIo) -> None:
        self._descriptor = descriptor
        self._direct = None if direct_io is DirectIo.OFF else DirectWriter(descriptor, path)
        #: Up to here it has written.
        self.end = 0
        #: Before this, everything is on the disk and out of memory.
        self._done: int | None = None
        #: The last two steps that were sent to the disk begin here and end there.
        self._steps = (0, 0)

    @property
    def is_direct(self) -> bool:
        """Whole blocks go past the page cache."""
        return self._direct is not None and self._direct.is_direct

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Writes the buffers one after the other from `offset` on."""
        if self._done is None:
            self._done = offset
            self._steps = (offset, offset)
        if self._direct is not None and self._direct.is_direct:
            self._direct.write(offset, buffers)
        else:
            posix.write_all(self._descriptor, offset, buffers)
        self.end = offset + sum(map(len, buffers))
        first, last = self._steps
        if not self.is_direct and self.end - last >= _BEHIND_BYTES:
            # The advice starts the writing of what is dirty, and drops what is clean: most of the steps
            # before this one, whose writing has had its time.
            posix.forget_cached(self._descriptor, first, self.end - first)
            self._steps = (last, self.end)

    def synced(self, end: int) -> None:
        """Everything up to `end` is on the disk; of what was buffered nobody needs the copy in memory."""
        if self._done is not None and end > self._done:
            posix.forget_cached(self._descriptor, self._done, end - self._done)
            self._done = end

    def close(self) -> None:
        """Lets go of what it has opened itself."""
        if self._direct is not None:
            self._direct.close()
