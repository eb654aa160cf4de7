"""Reading a blob of the local store."""

from __future__ import annotations

import os

from ingest_service.storage import posix
from ingest_service.storage.executor import FileExecutor
from ingest_service.storage.passing import PassingReader


class LocalBlobReader:
    """An open blob. Readers keep their bytes even if the name is replaced or removed meanwhile."""

    def __init__(self, descriptor: int, executor: FileExecutor) -> None:
        self._executor = executor
        self._reader = PassingReader(descriptor)
        self._size_bytes = os.fstat(descriptor).st_size

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    async def read(self, offset: int, size_bytes: int) -> bytes:
        try:
            return await self._executor.run(self._reader.read, size_bytes, offset)
        except OSError as error:
            raise posix.storage_error(error) from error
