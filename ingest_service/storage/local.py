"""The blob store in a local directory (design.md section 7, "on disk")."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from ingest_service.storage import adopting, posix
from ingest_service.storage.base import BlobReader, PartialFile
from ingest_service.storage.direct import DirectIo, takes_direct_writes
from ingest_service.storage.executor import FileExecutor
from ingest_service.storage.local_blob import LocalBlobReader
from ingest_service.storage.local_partial import LocalPartial
from ingest_service.storage.placed import NotPlaced, PlacedBy
from ingest_service.storage.placing import Placing, why_not_adoptable
from ingest_service.storage.source_file import SourceFile
from ingest_service.storage.store_guard import StoreGuard
from ingest_service.vocabulary.errors import BlobCorrupt, StorageFailed, WriterBusy

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_LOCK_WAIT_SECONDS = 10.0
_LOCK_POLL_SECONDS = 0.01
#: A file of somebody else's that was written to within this time may not be complete.
SETTLE_SECONDS = 5.0
_PROBE = b"model-ingest write probe\n"
#: What may become a path: ids that the service made, digests that it parsed; never a client's words.
_PARTIAL_ID = re.compile(r"[0-9A-Za-z]{1,64}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def blob_path(directory: Path, sha256: str) -> Path:
    """Where a blob lies."""
    digest = _DIGEST.fullmatch(sha256)
    if digest is None:
        raise ValueError("blobs are named by parsed digests")
    return directory / f"sha256-{digest[1]}"


class LocalBlobStore:
    """Blobs as files `blobs/sha256-<hex>`, partials as `uploads/<id>.part`; see `base.BlobStore`."""

    def __init__(
        self,
        data_directory: Path,
        executor: FileExecutor,
        *,
        settle_seconds: float = SETTLE_SECONDS,
        looker: FileExecutor | None = None,
        direct_io: DirectIo = DirectIo.AUTO,
        guard: StoreGuard | None = None,
    ) -> None:
        """`guard` refuses every call once the directory is another store's.

        `looker` has threads of its own for what CreateIngest asks, which must not queue behind writes."""
        self._blobs = data_directory / "blobs"
        self._uploads = data_directory / "uploads"
        self._locks = self._uploads / ".locks"
        self._executor = executor
        self._looker = looker or executor
        self._settle_seconds = settle_seconds
        self._direct_io = direct_io
        self._guard = guard or StoreGuard(data_directory)

    async def prepare(self) -> None:
        """Makes the directories. `blobs/` is open to readers: another container may read it."""

        def make() -> None:
            for path, mode in ((self._blobs, 0o755), (self._uploads, 0o700), (self._locks, 0o700)):
                posix.make_directory(path, mode)

        await self._run(make)

    async def create_partial(self, partial_id: str) -> PartialFile:
        path = self._partial_path(partial_id)
        descriptor = await self._open(self._create_locked, path)
        assert descriptor is not None
        return self._partial(partial_id, path, descriptor)

    async def adopts(self, source: SourceFile) -> bool:
        def look() -> bool:
            return adopting.can_reflink(source, self._uploads) or adopting.may_share(
                source, self._uploads, self._settle_seconds
            )

        return await self._run(look)

    async def adopt(self, partial_id: str, source: SourceFile) -> PartialFile | None:
        path = self._partial_path(partial_id)

        def adopt() -> int | None:
            descriptor = self._create_locked(path)
            try:
                if adopting.reflink(source.descriptor, descriptor):
                    return descriptor
                path.unlink()
                os.close(descriptor)
            except BaseException:
                path.unlink(missing_ok=True)
                os.close(descriptor)
                raise
            return adopting.share(source, path, self._settle_seconds)

        descriptor = await self._open(adopt)
        return None if descriptor is None else self._partial(partial_id, path, descriptor)

    async def open_partial(self, partial_id: str) -> PartialFile | None:
        path = self._partial_path(partial_id)
        descriptor = await self._open(self._open_locked, path)
        if descriptor is None:
            return None
        return self._partial(partial_id, path, descriptor)

    @contextlib.asynccontextmanager
    async def read_partial(self, partial_id: str) -> AsyncIterator[BlobReader]:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = await self._open(os.open, self._partial_path(partial_id), flags)
        assert descriptor is not None
        try:
            yield LocalBlobReader(descriptor, self._executor)
        finally:
            await self._executor.run(os.close, descriptor)

    async def remove_partial(self, partial_id: str) -> bool:
        path = self._partial_path(partial_id)

        def remove() -> bool:
            descriptor = self._open_locked(path)
            if descriptor is None:
                return False
            try:
                path.unlink()
            finally:
                os.close(descriptor)
            posix.sync_directory(self._uploads)
            return True

        return await self._run(remove)

    async def partial_ids(self) -> list[str]:
        def found() -> list[str]:
            # What has another kind of name, or is another kind of file, is not ours to remove.
            return sorted(
                path.stem
                for path in self._uploads.glob("*.part")
                if _PARTIAL_ID.fullmatch(path.stem) and posix.regular_size_bytes(path) is not None
            )

        return await self._run(found)

    async def publish(self, partial_id: str, sha256: str) -> None:
        partial, blob = self._partial_path(partial_id), self._blob_path(sha256)

        def move() -> None:
            try:
                with posix.open_descriptor(partial, os.O_RDONLY) as descriptor:
                    os.fchmod(descriptor, 0o644)
                partial.rename(blob)
            except FileNotFoundError:
                # A crash may have come between the rename and the row: then the blob is there.
                if posix.regular_size_bytes(blob) is None:
                    if posix.regular_size_bytes(partial) is not None:
                        raise
                    raise StorageFailed("The bytes of this file are not in the store any more.") from None
            posix.sync_directory(self._blobs)
            posix.sync_directory(self._uploads)

        async with self.digest_lock(sha256):
            await self._run_to_end(move)

    async def blob_size_bytes(self, sha256: str) -> int | None:
        return await self._run(posix.regular_size_bytes, self._blob_path(sha256), executor=self._looker)

    @contextlib.asynccontextmanager
    async def open_blob(self, sha256: str) -> AsyncIterator[BlobReader]:
        path = self._blob_path(sha256)
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = await self._executor.open(self._guarded, os.open, path, flags)
            assert descriptor is not None
        except FileNotFoundError as error:
            raise BlobCorrupt("The stored bytes are not there any more.") from error
        except OSError as error:
            raise posix.storage_error(error) from error
        try:
            yield LocalBlobReader(descriptor, self._executor)
        finally:
            await self._executor.run(os.close, descriptor)

    async def why_not_placeable(self, directory: Path) -> str:
        return await self._run(why_not_adoptable, directory)

    async def place_blob(self, sha256: str, directory: Path, on_progress: Callable[[int], None]) -> PlacedBy:
        why_not = await self.why_not_placeable(directory)
        if why_not:
            raise NotPlaced(why_not)
        return await Placing(self._blob_path(sha256), directory, self._executor).place(sha256, on_progress)

    async def blob_digests(self) -> list[str]:
        def found() -> list[str]:
            names = (path.name.replace("-", ":", 1) for path in self._blobs.glob("sha256-*"))
            return sorted(name for name in names if _DIGEST.fullmatch(name))

        return await self._run(found)

    async def remove_blob(self, sha256: str, unwanted: Callable[[], Awaitable[bool]]) -> bool:
        path = self._blob_path(sha256)

        def remove() -> None:
            path.unlink(missing_ok=True)
            posix.sync_directory(self._blobs)

        async with self.digest_lock(sha256):
            if not await unwanted():
                return False
            await self._run_to_end(remove)
        return True

    async def quarantine_blob(self, sha256: str, unknown: Callable[[], Awaitable[bool]]) -> str | None:
        path = self._blob_path(sha256)
        directory = self._blobs.parent / "quarantine"

        def move() -> str | None:
            posix.make_directory(directory, 0o700)
            # What lies there is never written over: it waits for a person.
            aside = directory / path.name
            if aside.exists():
                aside = directory / f"{path.name}.{secrets.token_hex(4)}"
            try:
                path.rename(aside)
            except FileNotFoundError:
                return None
            posix.sync_directory(directory)
            posix.sync_directory(self._blobs)
            return str(aside)

        async with self.digest_lock(sha256):
            return await self._run_to_end(move) if await unknown() else None

    async def probe(self) -> None:
        # Not the process id: in two containers on one volume both may be 1.
        name = f".probe-{secrets.token_hex(8)}"

        def probe() -> None:
            for directory in (self._uploads, self._blobs):
                path = directory / name
                posix.write_durably(path, _PROBE, 0o600)
                content = path.read_bytes()
                path.unlink()
                if content != _PROBE:
                    raise OSError("the probe read back other bytes than it wrote")

        # Whoever asks says what came of it.
        await self._run(probe, is_logged=False)

    async def free_bytes(self) -> int:
        return await self._run(lambda: shutil.disk_usage(self._blobs).free, executor=self._looker)

    async def takes_direct_writes(self) -> bool:
        """Whether partials can be written past the page cache here."""
        return await self._run(takes_direct_writes, self._uploads)

    def _partial(self, partial_id: str, path: Path, descriptor: int) -> LocalPartial:
        return LocalPartial(partial_id, path, descriptor, self._executor, self._direct_io)

    def _partial_path(self, partial_id: str) -> Path:
        if not _PARTIAL_ID.fullmatch(partial_id):
            raise ValueError("partials are named by ids that the service made")
        return self._uploads / f"{partial_id}.part"

    def _blob_path(self, sha256: str) -> Path:
        return blob_path(self._blobs, sha256)

    @staticmethod
    def _create_locked(path: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileExistsError:
            raise WriterBusy from None
        # Between open and lock a booting process may have taken it for an orphan, and removed it.
        if not posix.try_lock(descriptor) or not posix.is_same_file(descriptor, path):
            os.close(descriptor)
            raise WriterBusy
        return descriptor

    @staticmethod
    def _open_locked(path: Path) -> int | None:
        try:
            # Bytes that have another name as well are somebody's file, adopted: never to be written here.
            found = path.stat(follow_symlinks=False)
            is_shared = stat.S_ISREG(found.st_mode) and found.st_nlink > 1
            access = os.O_RDONLY if is_shared else os.O_RDWR
            descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if not posix.try_lock(descriptor):
            os.close(descriptor)
            raise WriterBusy
        if not posix.is_same_file(descriptor, path):
            os.close(descriptor)
            return None
        return descriptor

    @contextlib.asynccontextmanager
    async def digest_lock(self, sha256: str) -> AsyncIterator[None]:
        """One publisher or remover of a digest at a time, across processes; 256 stripes for all digests."""
        path = self._locks / sha256.removeprefix("sha256:")[:2]
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = await self._open(os.open, path, flags, 0o600)
        assert descriptor is not None
        try:
            waited = 0.0
            while not posix.try_lock(descriptor):
                if waited >= _LOCK_WAIT_SECONDS:
                    # Not a failure of the store: whoever holds it may only stand still, and no byte is lost.
                    raise WriterBusy("Another process is at work on the same bytes.")
                await asyncio.sleep(_LOCK_POLL_SECONDS)
                waited += _LOCK_POLL_SECONDS
            yield
        finally:
            os.close(descriptor)

    def _guarded(self, call: Callable[..., _T], *args: object) -> _T:
        self._guard.check()
        return call(*args)

    async def _open(self, call: Callable[..., int | None], *args: object) -> int | None:
        try:
            return await self._executor.open(self._guarded, call, *args)
        except OSError as error:
            posix.log_failure("a file of the store could not be opened", error)
            raise posix.storage_error(error) from error

    async def _run_to_end(self, call: Callable[[], _T]) -> _T:
        """Like `_run`, but a caller that is cancelled waits: the lock it holds must outlive the call."""
        running = asyncio.create_task(self._run(call))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait({running})
            raise

    async def _run(
        self,
        call: Callable[..., _T],
        *args: object,
        executor: FileExecutor | None = None,
        is_logged: bool = True,
    ) -> _T:
        try:
            return await (executor or self._executor).run(self._guarded, call, *args)
        except OSError as error:
            if is_logged:
                posix.log_failure("a file call of the store failed", error)
            raise posix.storage_error(error) from error
