"""One file of the import folder on its way in: adopted or copied, then an ordinary upload without a client.

    claim -> begin -> adopt -> row: all is committed -+-> session -> hashed -> at rest? -> finish -> end
                      cannot: chunks from the file ---+

Hashing, checkpoints, publishing, events and what a crash leaves are those of every upload. Nothing here is
lost: until the bytes are stored the file has a name of its own beside the partial's, and only then it goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import datetime

from ingest_service.database import Database, Transaction
from ingest_service.ingests.admission import Admission
from ingest_service.ingests.file_moves import FileMoves, failure_of
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.session import UploadSession
from ingest_service.ingests.takeover import import_changed
from ingest_service.ingests.uploads import Uploads
from ingest_service.storage import BlobStore, Claim, ImportFolder, SourceFile
from ingest_service.vocabulary.errors import (
    Draining,
    FileNotFound,
    IngestError,
    IngestNotFound,
    SizeMismatch,
    StorageFailed,
    StorageFull,
)
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Failure, File
from ingest_service.vocabulary.states import FILE_OPEN, FileState

_log = logging.getLogger(__name__)
#: How long to wait for what passes, such as a database that is away; after that the next boot goes on.
_PAUSES_SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
_LEFT = Failure(
    Reason.UPLOAD_INTERRUPTED,
    "The file left the import folder, or was replaced there, before all of it was taken in.",
)


class TakingIn:
    """Brings claimed files in, each in one call of `run`."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        folder: ImportFolder,
        uploads: Uploads,
        limits: Limits,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._folder = folder
        self._uploads = uploads
        self._limits = limits
        self._moves = FileMoves(database, clock)
        self._admission = Admission(store, limits, clock=clock)

    async def run(self, claim: Claim, source: SourceFile | None) -> None:
        """To the end, or as far as it goes now; whatever comes, `claim` and `source` are let go of."""
        extra = {"ingest": claim.ingest_id, "file": claim.name}
        stored: bool | None = None
        try:
            for pause_seconds in (*_PAUSES_SECONDS, 0.0):
                try:
                    await self._take_in(claim, source)
                except IngestError as error:
                    detail = {"reason": error.reason, "detail": error.message}
                    _log.warning("a file could not be taken in", extra={**extra, **detail})
                    if isinstance(error, SizeMismatch):
                        # Its second name goes, so that the file can be taken in anew without a copy.
                        with contextlib.suppress(IngestError):
                            await self._store.remove_partial(claim.file_id)
                    if error.retry_after_seconds and pause_seconds and not isinstance(error, Draining):
                        await asyncio.sleep(pause_seconds)
                        continue
                break
            stored = await self._is_stored(claim)
        except Exception:  # noqa: BLE001 (logged; the next boot goes on)
            _log.exception("unforeseen fault while a file was taken in", extra=extra)
        finally:
            # Broken off half-way, a descriptor would stay open, or be closed twice and be another's by then.
            letting_go = asyncio.ensure_future(self._let_go(claim, source, stored=stored))
            try:
                await asyncio.shield(letting_go)
            except asyncio.CancelledError:
                await asyncio.wait({letting_go})
                raise

    async def source_of(self, claim: Claim) -> SourceFile | None:
        """After a crash: the claimed file, if it still lies there as it was."""
        try:
            source = await self._folder.open(claim.name)
        except FileNotFound:
            return None
        if source.identity == claim.identity:
            return source
        await source.close()
        return None

    async def _take_in(self, claim: Claim, source: SourceFile | None) -> None:
        file = await self._file(claim)
        if file.state in FILE_OPEN:
            if file.committed_size == 0 and source is not None:
                await self._adopt(file, source)
            elif source is None and not await self._is_all_here(claim, file):
                _, begun = await self._moves.begin(claim.ingest_id, claim.name)
                await self._moves.fail(begun, _LEFT)
                await self._store.remove_partial(begun.id)
                return
        async with self._uploads.receive(claim.ingest_id, claim.name) as upload:
            digest = ""
            if isinstance(upload, UploadSession):
                digest = await self._sent_and_hashed(upload, claim, source)
                await self._check_unchanged(claim, source)
            await self._uploads.finish(upload, digest)

    async def _is_all_here(self, claim: Claim, file: File) -> bool:
        """What is committed can be finished without the file: it was copied, and somebody removed it since,
        or it is the file itself.
        """
        if file.committed_size < file.size_bytes:
            return False
        return await self._folder.is_shared(claim) or not await self._lies_there(claim)

    async def _lies_there(self, claim: Claim) -> bool:
        try:
            source = await self._folder.open(claim.name)
        except FileNotFound:
            return False
        await source.close()
        return True

    async def _adopt(self, file: File, source: SourceFile) -> None:
        """Commits all bytes at once where that needs no copy; else leaves them to be sent."""
        _, begun = await self._moves.begin(file.ingest_id, file.file_name)
        # Of one who was killed before it had committed anything.
        await self._store.remove_partial(begun.id)
        partial = await self._store.adopt(begun.id, source)
        if partial is None:
            try:
                await self._check_room()
            except StorageFull as error:
                await self._moves.fail(begun, failure_of(error))
                raise
            return
        try:
            if await partial.size_bytes() == file.size_bytes:
                await partial.sync()
                await self._moves.checkpoint(begun, file.size_bytes)
            else:
                await partial.remove()
        finally:
            await partial.close()

    async def _check_room(self) -> None:
        """For one that was let in because it would need none. Raises StorageFull."""
        usable = await self._admission.usable_bytes()

        async def work(tx: Transaction) -> None:
            # What this file lacks is among what is reserved.
            await self._admission.check(tx, 0, usable)

        await self._database.transact(work)

    async def _send(self, session: UploadSession, source: SourceFile | None) -> None:
        size_bytes = session.file.size_bytes
        offset = session.pipeline.received_bytes
        while offset < size_bytes:
            if session.interruption is not None:
                raise session.interruption
            if source is None:
                raise StorageFailed
            step = min(self._limits.recommended_chunk_bytes, size_bytes - offset)
            try:
                data = await source.read(offset, step)
            except OSError as error:
                raise _unreadable() from error
            if not data:
                raise import_changed()
            await session.chunk(offset, data, None)
            offset += len(data)

    async def _sent_and_hashed(self, session: UploadSession, claim: Claim, source: SourceFile | None) -> str:
        try:
            await self._send(session, source)
            return await _hashed(session)
        except StorageFailed:
            # What is missing may be what somebody has cut off; then nothing of the store's is lost.
            if await self._folder.has_changed(claim):
                raise import_changed() from None
            raise

    async def _check_unchanged(self, claim: Claim, source: SourceFile | None) -> None:
        """All is hashed: now the bytes that were hashed must be those of one moment, and stay."""
        if await self._folder.is_shared(claim):
            if not await self._folder.take_away(claim):
                raise import_changed()
        elif source is not None and await source.has_changed():
            raise import_changed()

    async def _is_stored(self, claim: Claim) -> bool | None:
        """Whether it ended with the file stored, or without; None: it has not ended."""
        try:
            file = await self._file(claim)
        except (IngestNotFound, FileNotFound):
            return False
        if file.state in {FileState.STORED, FileState.FAILED}:
            return file.state is FileState.STORED
        _log.warning(
            "a file is not taken in yet; the next start goes on",
            extra={"ingest": claim.ingest_id, "file": claim.name, "committed_size": file.committed_size},
        )
        return None

    async def _let_go(self, claim: Claim, source: SourceFile | None, *, stored: bool | None) -> None:
        try:
            if stored is None:
                await self._folder.release(claim)
            else:
                # Lets go of the claim even where it fails.
                await self._folder.end(claim, stored=stored)
        except Exception:  # noqa: BLE001 (logged; the next boot goes on)
            extra = {"ingest": claim.ingest_id, "file": claim.name}
            _log.exception("unforeseen fault while a file was let go of", extra=extra)
        finally:
            if source is not None:
                await source.close()

    async def _file(self, claim: Claim) -> File:
        return await self._uploads.current(claim.ingest_id, claim.name)


async def _hashed(session: UploadSession) -> str:
    """Waits until the hasher has followed; ends at once when the session is to end (cancel, drain)."""
    interrupted = asyncio.Event()
    session.on_interrupt(interrupted.set)
    waits = [asyncio.ensure_future(session.pipeline.drain()), asyncio.ensure_future(interrupted.wait())]
    try:
        if session.interruption is None:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if session.interruption is not None:
            raise session.interruption
        return await session.pipeline.drain()
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def _unreadable() -> IngestError:
    return StorageFailed("The file in the import folder cannot be read.")
