"""Puts right what a crash left: at every boot, and now and then for replicas that died meanwhile.

A file is touched only while its partial's lock is held (not to be had: somebody is at work, leave it) and
after its row was read again under it. One log line for each thing that was put right.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime

from ingest_service.blobs import Vetting
from ingest_service.database import Database
from ingest_service.ingests.file_moves import LOST_BYTES, FileMoves, failure_of
from ingest_service.ingests.takeover import changed_import
from ingest_service.storage import BlobStore, PartialFile
from ingest_service.vocabulary.errors import (
    BlobCorrupt,
    FormatInvalid,
    StorageFailed,
    StoreDown,
    StoreReplaced,
    WriterBusy,
)
from ingest_service.vocabulary.records import File
from ingest_service.vocabulary.states import FileState

_log = logging.getLogger(__name__)
_AT_ONCE = 16


class Recovery:
    """Finishes publications, makes half-verified files resumable, cuts partials to what is committed."""

    def __init__(
        self, database: Database, store: BlobStore, vetting: Vetting, *, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._store = store
        self._vetting = vetting
        self._moves = FileMoves(database, clock)

    async def at_boot(self) -> None:
        """Everything: unfinished files, partials without one, blobs without a row, rows without a blob."""
        # First: on a full disk nothing else can be written before there is room.
        await self.remove_orphans()
        files = await self._database.read(lambda tx: tx.files.unfinished())
        await _all(self._repair(file) for file in files)
        await self.remove_orphans()
        await self._compare_blobs()

    async def of_the_dead(self) -> None:
        """Files that were being verified or published by a process that is gone."""
        files = await self._database.read(lambda tx: tx.files.unfinished())
        await _all(self._repair(file) for file in files if file.state is not FileState.UPLOADING)

    async def remove_orphans(self) -> None:
        """Partials whose file is unknown, or needs them no more."""
        partial_ids = await self._store.partial_ids()
        states = await self._database.read(lambda tx: tx.files.states(partial_ids))
        await _all(
            self._remove_orphan(partial_id)
            for partial_id in partial_ids
            if states.get(partial_id) in {None, FileState.FAILED, FileState.STORED}
        )

    async def _repair(self, file: File) -> None:
        try:
            await self._put_right(file)
        except StoreReplaced:
            raise
        except (StorageFailed, StoreDown, BlobCorrupt):
            # One bad spot of the disk is no reason not to serve, nor to leave the others as they are.
            _log.exception("left a file that cannot be put right", extra=_of(file))

    async def _put_right(self, file: File) -> None:
        try:
            partial = await self._store.open_partial(file.id)
        except WriterBusy:
            return
        except (StorageFailed, StoreDown):
            if file.id in await self._store.partial_ids():
                raise
            # Something that is no file has its name: no upload can be running on it.
            await self._moves.fail(file, LOST_BYTES)
            _log.exception("a partial cannot be opened; its file failed", extra=_of(file))
            return
        try:
            current = await self._moves.read(file)
            if current.state is FileState.PUBLISHING:
                await self._publish(current, partial)
            elif current.state in {FileState.UPLOADING, FileState.VERIFYING}:
                await self._make_resumable(current, partial)
        finally:
            if partial is not None:
                await partial.close()

    async def _publish(self, file: File, partial: PartialFile | None) -> None:
        """Its digest was right: whichever of partial and blob exists becomes the blob."""
        assert file.sha256 is not None
        try:
            if partial is not None:
                await self._check_partial(file, partial)
        except StorageFailed:
            await self._fail_as_lost(file)
            return
        try:
            await self._store.publish(file.id, file.sha256)
            inspection = await self._vetting.inspect(file.sha256, file.file_name)
        except WriterBusy:
            _log.info("left a publication that another process is at", extra=_of(file))
            return
        except FormatInvalid as refused:
            await self._moves.fail(file, failure_of(refused))
            _log.warning("a file in publication is refused", extra={**_of(file), "detail": refused.message})
            return
        except (StorageFailed, BlobCorrupt):
            if partial is not None:
                # Its bytes are durable under one name or the other: a disk that fails now may work later.
                raise
            await self._fail_as_lost(file)
            return
        await self._moves.stored(file, inspection)
        _log.info("finished the publication of a file", extra={**_of(file), "sha256": file.sha256})

    async def _fail_as_lost(self, file: File) -> None:
        _log.exception("a file in publication has lost its bytes", extra=_of(file))
        await self._moves.fail(file, LOST_BYTES)

    async def _check_partial(self, file: File, partial: PartialFile) -> None:
        """Its sync came before the row, so the bytes are there; a disk that lied is found out here."""
        assert file.sha256 is not None
        if await partial.size_bytes() == file.size_bytes:
            await partial.sync()
        elif await self._store.blob_size_bytes(file.sha256) == file.size_bytes:
            # It has its name already; this one was made by a newcomer who came too late, and died.
            await partial.remove()
        else:
            raise StorageFailed

    async def _make_resumable(self, file: File, partial: PartialFile | None) -> None:
        size_bytes = 0 if partial is None else await partial.size_bytes()
        changed = partial and changed_import(partial, size_bytes, file.committed_size)
        if changed:
            await self._moves.fail(file, failure_of(changed))
            _log.warning("an import's file was changed before all of it was taken in", extra=_of(file))
            return
        if size_bytes < file.committed_size:
            if partial is None and file.id in await self._store.partial_ids():
                # A live upload has made it since we looked, and has the lock that we do not.
                return
            await self._moves.fail(file, LOST_BYTES)
            _log.error(
                "a partial is shorter than its committed size; its file failed",
                extra={**_of(file), "size_bytes": size_bytes, "committed_size": file.committed_size},
            )
            return
        if partial is not None and size_bytes > file.committed_size:
            await partial.truncate(file.committed_size)
            _log.info(
                "cut a partial to what is committed",
                extra={**_of(file), "size_bytes": size_bytes, "committed_size": file.committed_size},
            )
        if file.state is FileState.VERIFYING:
            await self._moves.back_to_uploading(file)
            _log.info("a file that was being verified can be finished again", extra=_of(file))

    async def _remove_orphan(self, partial_id: str) -> None:
        try:
            if await self._store.remove_partial(partial_id):
                _log.info("removed a partial that belongs to no upload", extra={"partial": partial_id})
        except WriterBusy:
            _log.info("left a partial that another process holds", extra={"partial": partial_id})
        except StorageFailed:
            # One file that cannot be removed is no reason not to serve; the store has logged why.
            _log.warning("left a partial that cannot be removed", extra={"partial": partial_id})

    async def _compare_blobs(self) -> None:
        digests = await self._store.blob_digests()
        known = await self._database.read(lambda tx: tx.blobs.known(digests))
        for sha256 in digests:
            if sha256 not in known:
                await self._quarantine(sha256)
        for sha256, size_bytes in (await self._database.read(lambda tx: tx.blobs.live_sizes())).items():
            found = await self._store.blob_size_bytes(sha256)
            if found != size_bytes:
                await self._mark_corrupt(sha256)
                if await self._store.blob_size_bytes(sha256) == size_bytes:
                    # Somebody pushed it again between our look and the mark, and found it still LIVE.
                    await self._mark_healed(sha256)
                    continue
                _log.error(
                    "a stored blob is missing or has another length; push the same file again",
                    extra={"sha256": sha256, "size_bytes": size_bytes, "found_bytes": found},
                )

    async def _quarantine(self, sha256: str) -> None:
        async def unknown() -> bool:
            # Somebody may have uploaded the same bytes since we looked.
            return not await self._database.read(lambda tx: tx.blobs.known([sha256]))

        try:
            where = await self._store.quarantine_blob(sha256, unknown)
        except WriterBusy:
            return
        if where is not None:
            _log.warning("quarantined a blob that nobody knows", extra={"sha256": sha256, "path": where})

    async def _mark_corrupt(self, sha256: str) -> None:
        await self._database.transact(lambda tx: tx.blobs.mark_corrupt(sha256))

    async def _mark_healed(self, sha256: str) -> None:
        await self._database.transact(lambda tx: tx.blobs.mark_healed(sha256))


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """A few at a time: a thousand unfinished uploads must not make a slow boot.

    Raises the first error, once all the others were seen to.
    """
    free = asyncio.Semaphore(_AT_ONCE)

    async def one(item: Awaitable[None]) -> None:
        async with free:
            await item

    outcomes = await asyncio.gather(*(one(item) for item in work), return_exceptions=True)
    for outcome in outcomes:
        if outcome is not None:
            raise outcome


def _of(file: File) -> dict[str, str]:
    return {"ingest": file.ingest_id, "file": file.file_name}
