"""A file of somebody else's, open for reading, that the store is to take in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ingest_service.storage.executor import FileExecutor
from ingest_service.storage.passing import PassingReader


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Which file it is, and whether its content can still be the same."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileIdentity:
        """From what `stat` says."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def is_inode_of(self, found: os.stat_result) -> bool:
        """The same file, whatever has become of its content."""
        return (self.device, self.inode) == (found.st_dev, found.st_ino)


class SourceFile:
    """Open until `close`. Somebody may write to it meanwhile: `has_changed` tells, if time goes on."""

    def __init__(self, path: Path, descriptor: int, executor: FileExecutor) -> None:
        self.path = path
        self.descriptor = descriptor
        self.identity = FileIdentity.of(os.fstat(descriptor))
        self._executor = executor
        self._reader = PassingReader(descriptor)

    @property
    def size_bytes(self) -> int:
        """How long it was when it was opened."""
        return self.identity.size_bytes

    async def read(self, offset: int, size_bytes: int) -> bytes:
        """Up to `size_bytes` from `offset`; fewer only at the end. Raises OSError."""
        return await self._executor.run(self._reader.read, size_bytes, offset)

    async def has_changed(self) -> bool:
        """It was written to since it was opened."""
        return FileIdentity.of(await self._executor.run(os.fstat, self.descriptor)) != self.identity

    async def close(self) -> None:
        """Lets go of it."""
        await self._executor.run(os.close, self.descriptor)
