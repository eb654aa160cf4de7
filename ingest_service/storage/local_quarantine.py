"""The quarantine of the local store: blobs that were moved aside because no row knew them.

`LocalBlobStore.quarantine_blob` fills it. Nothing here is believed by its name: whoever takes a copy back or
removes it has hashed it before.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ingest_service.storage import posix
from ingest_service.storage.base import BlobReader
from ingest_service.storage.executor import FileExecutor
from ingest_service.storage.local import LocalBlobStore, blob_path
from ingest_service.storage.local_blob import LocalBlobReader
from ingest_service.storage.store_guard import StoreGuard
from ingest_service.vocabulary.errors import BlobCorrupt

_T = TypeVar("_T")
#: The blob's own name, or that and a few digits where the name was taken.
_NAME = re.compile(r"sha256-([0-9a-f]{64})(\.[0-9a-f]{8})?")


@dataclass(frozen=True, slots=True)
class QuarantinedCopy:
    """A file in quarantine as it was when it was looked at; `sha256` is what its name says."""

    sha256: str
    name: str
    size_bytes: int
    inode: int
    modified_ns: int


class LocalQuarantine:
    """Lists, reads, takes back and removes what is in `quarantine/`."""

    def __init__(
        self,
        data_directory: Path,
        store: LocalBlobStore,
        executor: FileExecutor,
        guard: StoreGuard,
        looker: FileExecutor | None = None,
    ) -> None:
        self._directory = data_directory / "quarantine"
        self._blobs = data_directory / "blobs"
        self._store = store
        self._executor = executor
        # Who asks whether there is a copy must not wait for threads that a disk holds up.
        self._looker = looker or executor
        self._guard = guard

    async def copies(self, of: Collection[str] | None = None) -> list[QuarantinedCopy]:
        """Every regular file there that has a blob's name (`of`: of these digests), by name. Raises
        StorageFailed, StoreDown."""
        return await self._run(lambda: self._copies(of), self._looker)

    @contextlib.asynccontextmanager
    async def open(self, copy: QuarantinedCopy) -> AsyncIterator[BlobReader]:
        """The copy, open for reading. Raises BlobCorrupt if it is gone or is another file by now."""

        def open_same() -> int:
            self._guard.check()
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._directory / copy.name, flags)
            if _seen(copy.name, os.fstat(descriptor)) != copy:
                os.close(descriptor)
                raise FileNotFoundError(copy.name)
            return descriptor

        try:
            descriptor = await self._executor.open(open_same)
        except FileNotFoundError as error:
            raise BlobCorrupt("The copy in quarantine is not there any more.") from error
        except OSError as error:
            raise posix.storage_error(error) from error
        assert descriptor is not None
        try:
            yield LocalBlobReader(descriptor, self._executor)
        finally:
            await self._executor.run(os.close, descriptor)

    async def take_back(self, copy: QuarantinedCopy, record: Callable[[], Awaitable[None]]) -> bool:
        """Moves a copy, whose bytes were proved, to the blob's place, durably, then awaits `record`.

        Nobody else works on the digest until `record` has returned. False, and nothing moved, if the copy is
        gone or another file by now. A crash before `record` leaves a blob without a row, which the next boot
        moves to quarantine again. Raises WriterBusy.
        """

        def move() -> bool:
            source = self._directory / copy.name
            if not self._is_as_seen(copy):
                return False
            with posix.open_descriptor(source, os.O_RDONLY) as descriptor:
                # The operator may have brought it back from elsewhere: its bytes may not be on the disk yet.
                os.fchmod(descriptor, 0o644)
                os.fsync(descriptor)
            source.rename(blob_path(self._blobs, copy.sha256))
            posix.sync_directory(self._blobs)
            posix.sync_directory(self._directory)
            return True

        async with self._store.digest_lock(copy.sha256):
            if not await self._run(move):
                return False
            await record()
        return True

    async def remove(self, copy: QuarantinedCopy) -> bool:
        """Removes a copy, durably; False if it is gone or another file by now."""

        def remove() -> bool:
            if not self._is_as_seen(copy):
                return False
            (self._directory / copy.name).unlink()
            posix.sync_directory(self._directory)
            return True

        return await self._run(remove)

    def _copies(self, of: Collection[str] | None) -> list[QuarantinedCopy]:
        found: list[QuarantinedCopy] = []
        try:
            with os.scandir(self._directory) as entries:
                names = sorted(entry.name for entry in entries if _is_named_for(entry.name, of))
        except FileNotFoundError:
            return []
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                seen = _seen(name, (self._directory / name).stat(follow_symlinks=False))
                found += [seen] if seen is not None else []
        return found

    def _is_as_seen(self, copy: QuarantinedCopy) -> bool:
        try:
            return _seen(copy.name, (self._directory / copy.name).stat(follow_symlinks=False)) == copy
        except FileNotFoundError:
            return False

    async def _run(self, call: Callable[[], _T], executor: FileExecutor | None = None) -> _T:
        def guarded() -> _T:
            self._guard.check()
            return call()

        try:
            return await (executor or self._executor).run(guarded)
        except OSError as error:
            posix.log_failure("a file call in quarantine failed", error)
            raise posix.storage_error(error) from error


def _is_named_for(name: str, digests: Collection[str] | None) -> bool:
    named = _NAME.fullmatch(name)
    return named is not None and (digests is None or f"sha256:{named[1]}" in digests)


def _seen(name: str, found: os.stat_result) -> QuarantinedCopy | None:
    digest = _NAME.fullmatch(name)
    if digest is None or not stat.S_ISREG(found.st_mode):
        return None
    return QuarantinedCopy(f"sha256:{digest[1]}", name, found.st_size, found.st_ino, found.st_mtime_ns)
