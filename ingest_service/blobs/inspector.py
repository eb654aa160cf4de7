"""Brings a file's bytes through the reader of its format, on a worker thread."""

from __future__ import annotations

from typing import Protocol

from ingest_service.formats import FormatLimits, FormatReader
from ingest_service.storage import FileExecutor
from ingest_service.vocabulary.errors import FormatInvalid, StorageFailed
from ingest_service.vocabulary.records import Inspection

_PIECE_BYTES = 1 << 20


class _Readable(Protocol):
    async def read(self, offset: int, size_bytes: int) -> bytes: ...


class Inspector:
    """Of one file; one call at a time. Every method raises FormatInvalid, and again once it has."""

    def __init__(self, file_name: str, size_bytes: int, limits: FormatLimits, executor: FileExecutor) -> None:
        self._reader = FormatReader(file_name, size_bytes, limits)
        self._executor = executor

    @property
    def inspection(self) -> Inspection | None:
        """What the file is, once all that is checked was read."""
        return self._reader.inspection

    async def feed(self, data: bytes) -> None:
        """Takes the file's next bytes; those behind what is checked cost nothing."""
        if self._reader.wants_more:
            await self._executor.run(self._reader.feed, data)
        self._raise()

    async def catch_up(self, source: _Readable, end: int) -> None:
        """Reads on by itself, up to the file's byte `end` or to the verdict. Raises StorageFailed too."""
        while self._reader.wants_more and self._reader.fed_bytes < end:
            size_bytes = min(_PIECE_BYTES, end - self._reader.fed_bytes)
            data = await source.read(self._reader.fed_bytes, size_bytes)
            if not data:
                raise StorageFailed("The stored file is shorter than it was.")
            await self._executor.run(self._reader.feed, data)
        self._raise()

    def _raise(self) -> None:
        error: FormatInvalid | None = self._reader.error
        if error is not None:
            raise error
