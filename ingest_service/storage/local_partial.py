"""A partial file in the local store."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ingest_service.storage import posix
from ingest_service.storage.adopting import replace_by_empty
from ingest_service.storage.buffer import Buffer
from ingest_service.storage.direct import DirectIo
from ingest_service.storage.executor import FileExecutor
from ingest_service.storage.writer import Writer
from ingest_service.vocabulary.errors import StorageFailed

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class LocalPartial:
    """An open, locked `.part`. Its lock ends with its descriptor, so a killed process leaves none behind."""

    def __init__(
        self,
        partial_id: str,
        path: Path,
        descriptor: int,
        executor: FileExecutor,
        direct_io: DirectIo = DirectIo.AUTO,
    ) -> None:
        self._partial_id = partial_id
        self._path = path
        self._descriptor: int | None = descriptor
        # Only then it is opened for reading alone.
        self._is_shared = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        self._executor = executor
        self._direct_io = direct_io
        self._writer: Writer | None = None
        # Whoever made it may have gone, or died, before its first sync.
        self._parent_synced = False
        self._poisoned = False
        self._running: set[asyncio.Future[Any]] = set()

    @property
    def partial_id(self) -> str:
        return self._partial_id

    @property
    def is_shared(self) -> bool:
        return self._is_shared

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        await self._run(lambda descriptor: self._write(descriptor, offset, buffers))

    def _write(self, descriptor: int, offset: int, buffers: Sequence[Buffer]) -> None:
        if self._writer is None:
            # Not before it is needed: many partials are opened only to be removed, or read.
            self._writer = Writer(descriptor, self._path, self._direct_io)
        self._writer.write(offset, buffers)

    async def read(self, offset: int, size_bytes: int) -> bytes:
        return await self._run(lambda descriptor: _read(descriptor, offset, size_bytes))

    async def truncate(self, size_bytes: int) -> None:
        await self._run(lambda descriptor: self._cut(descriptor, size_bytes))

    def _cut(self, descriptor: int, size_bytes: int) -> None:
        if os.fstat(descriptor).st_size == size_bytes:
            return
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR:
            os.ftruncate(descriptor, size_bytes)
        else:
            # An imported file that has kept its own name: its bytes are committed all at once or not at all,
            # so these never were, and they are not ours to cut.
            replace_by_empty(descriptor, self._path)
            self._writer = None

    async def sync(self) -> None:
        parent_synced = self._parent_synced
        await self._run(lambda descriptor: self._sync(descriptor, parent_synced))
        self._parent_synced = True

    def _sync(self, descriptor: int, parent_synced: bool) -> None:
        writer = self._writer
        covered = 0 if writer is None else writer.end
        os.fdatasync(descriptor)
        if writer is not None:
            writer.synced(covered)
        if not parent_synced:
            # Without this the bytes are on the disk and their name is not (security.md section 6).
            posix.sync_directory(self._path.parent)

    async def size_bytes(self) -> int:
        return await self._run(lambda descriptor: os.fstat(descriptor).st_size)

    async def remove(self) -> None:
        await self._run(self._unlink)
        await self.close()

    def _unlink(self, descriptor: int) -> None:
        self._path.unlink(missing_ok=True)
        posix.sync_directory(self._path.parent)

    async def close(self) -> None:
        while self._running:
            await asyncio.wait(set(self._running))
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            await self._executor.run(self._let_go, descriptor)

    def _let_go(self, descriptor: int) -> None:
        if self._writer is not None:
            self._writer.close()
        # Last: the lock ends with it.
        os.close(descriptor)

    async def _run(self, call: Callable[[int], _T]) -> _T:
        if self._descriptor is None:
            raise RuntimeError("a closed partial was used")
        if self._poisoned:
            # A second sync after a failed one would say "fine" about bytes that are gone.
            raise StorageFailed
        future = self._executor.submit(self._unless_poisoned, call, self._descriptor)
        self._running.add(future)
        future.add_done_callback(self._ended)
        try:
            return await asyncio.shield(future)
        except OSError as error:
            _log.exception("a file call on a partial failed", extra={"partial": self._partial_id})
            raise posix.storage_error(error, is_write=True) from error

    def _unless_poisoned(self, call: Callable[[int], _T], descriptor: int) -> _T:
        # In the thread: a call that was queued while another failed must not reach the system either, and
        # the failure counts even if its caller was cancelled and never hears of it.
        if self._poisoned:
            raise StorageFailed
        try:
            return call(descriptor)
        except OSError:
            self._poisoned = True
            raise

    def _ended(self, future: asyncio.Future[Any]) -> None:
        self._running.discard(future)
        if not future.cancelled():
            future.exception()  # a caller that was cancelled will not ask for it


def _read(descriptor: int, offset: int, size_bytes: int) -> bytes:
    data = os.pread(descriptor, size_bytes, offset)
    # The hasher of a restarted process reads all that was committed, once.
    posix.forget_cached(descriptor, offset, len(data))
    return data
