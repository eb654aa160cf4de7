"""Reading a large file once: what was read goes out of the page cache again, a little later.

A model of 40 GB that is sent to a target, hashed again or copied in would otherwise push a model that runs
out of memory. Pages that a program has mapped stay, whoever gives the advice.
"""

from __future__ import annotations

import os

from ingest_service.storage import posix

#: Who reads the same file beside, a little behind, finds it in the cache; and few calls do for many reads.
_KEPT_BYTES = 32 * 1024 * 1024


class PassingReader:
    """Of an open file. Blocking calls; several at once only make the advice worse."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._forgotten = self._end = 0

    def read(self, size_bytes: int, offset: int) -> bytes:
        """As `os.pread`."""
        data = os.pread(self._descriptor, size_bytes, offset)
        if offset != self._end:
            # Somewhere else than where it was: what lies between was not read by us.
            self._forgotten = offset
        self._end = offset + len(data)
        if self._end - self._forgotten >= 2 * _KEPT_BYTES:
            until = self._end - _KEPT_BYTES
            posix.forget_cached(self._descriptor, self._forgotten, until - self._forgotten)
            self._forgotten = until
        return data
