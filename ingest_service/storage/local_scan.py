"""Scans of the local store: one thread of the lowest priority, one buffer, nothing left in the page cache."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

from ingest_service.storage import posix
from ingest_service.storage.executor import FileExecutor
from ingest_service.storage.local import blob_path
from ingest_service.storage.scan import BlobScan
from ingest_service.storage.store_guard import StoreGuard
from ingest_service.vocabulary.digests import digest_of_hex
from ingest_service.vocabulary.errors import BlobCorrupt, IngestError, StorageFailed

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

#: Large enough that the thread asks for the interpreter's lock some hundred times a second, not thousands:
#: whoever holds that lock at the lowest priority keeps the event loop waiting.
_PIECE_BYTES = 4 * 1024 * 1024
_LOWEST_PRIORITY = 19


class LocalScanner:
    """See `scan.BlobScanner`. Its thread begins with the first scan and ends with `close`."""

    def __init__(self, data_directory: Path, guard: StoreGuard | None = None) -> None:
        self._blobs = data_directory / "blobs"
        self._guard = guard or StoreGuard(data_directory)
        self._executor = FileExecutor(1, nice=_LOWEST_PRIORITY)

    @contextlib.asynccontextmanager
    async def open(self, sha256: str) -> AsyncIterator[BlobScan]:
        path = blob_path(self._blobs, sha256)
        try:
            descriptor = await self._executor.open(self._open, path)
        except FileNotFoundError as error:
            raise BlobCorrupt("The stored bytes are not there any more.") from error
        except OSError as error:
            raise _unreadable(error) from error
        assert descriptor is not None
        try:
            yield LocalScan(descriptor, path, self._executor)
        finally:
            # Behind whatever the one thread is still at, also when the caller was cancelled.
            await asyncio.shield(self._executor.submit(os.close, descriptor))

    def _open(self, path: Path) -> int:
        # First: in another directory every blob would look lost.
        self._guard.check()
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        # What the cache holds of it says nothing about the disk, which is what is to be looked at.
        posix.forget_cached(descriptor, 0, 0)
        return descriptor

    def close(self) -> None:
        """Waits for the few bytes that are being read, and for the closing of files behind them."""
        self._executor.close(drop_queued=False)


class LocalScan:
    """An open file and its running hash."""

    def __init__(self, descriptor: int, path: Path, executor: FileExecutor) -> None:
        self._descriptor = descriptor
        self._path = path
        self._executor = executor
        self._size_bytes = os.fstat(descriptor).st_size
        self._hash = hashlib.sha256()
        self._offset = 0
        self._buffer = memoryview(bytearray(min(_PIECE_BYTES, max(self._size_bytes, 1))))

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    async def hash_next(self) -> int:
        return await self._run(self._hash_piece)

    def digest(self) -> str:
        return digest_of_hex(self._hash.hexdigest())

    async def is_current(self) -> bool:
        return await self._run(lambda: posix.is_same_file(self._descriptor, self._path))

    def _hash_piece(self) -> int:
        count = _read_into(self._descriptor, self._buffer, self._offset)
        self._hash.update(self._buffer[:count])
        posix.forget_cached(self._descriptor, self._offset, count)
        self._offset += count
        return count

    async def _run(self, call: Callable[[], _T]) -> _T:
        try:
            return await self._executor.run(call)
        except OSError as error:
            raise _unreadable(error) from error


def _read_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    return os.preadv(descriptor, [buffer], offset)


def _unreadable(error: OSError) -> IngestError:
    _log.error("stored bytes cannot be read", exc_info=error)
    known = posix.storage_error(error)
    return StorageFailed("The stored bytes cannot be read.") if isinstance(known, StorageFailed) else known
