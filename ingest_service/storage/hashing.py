"""sha256 in a thread.

hashlib lets go of the GIL for more than 2 KiB, so hashing and writing run side by side.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from ingest_service.storage.buffer import Buffer
from ingest_service.storage.executor import FileExecutor
from ingest_service.vocabulary.digests import digest_of_hex


class Sha256:
    """An incremental sha256; one update at a time."""

    def __init__(self, executor: FileExecutor) -> None:
        self._executor = executor
        self._hash = hashlib.sha256()
        self._hashed_bytes = 0
        self._running: asyncio.Future[None] | None = None

    @property
    def hashed_bytes(self) -> int:
        """Bytes taken in so far; certain only when no update runs (`settle`)."""
        return self._hashed_bytes

    async def update(self, buffers: Sequence[Buffer]) -> None:
        """Takes in the buffers, in order."""
        self._running = self._executor.submit(self._update, list(buffers))
        await asyncio.shield(self._running)

    async def settle(self) -> None:
        """Waits for an update whose caller was cancelled: it goes on in its thread."""
        if self._running is not None:
            await asyncio.wait({self._running})

    def digest(self) -> str:
        """`sha256:<hex>` of all that was taken in."""
        return digest_of_hex(self._hash.hexdigest())

    def _update(self, buffers: list[Buffer]) -> None:
        for buffer in buffers:
            self._hash.update(buffer)
            self._hashed_bytes += len(buffer)
