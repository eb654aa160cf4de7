"""Moves of one file's row: each one transaction under the ingest's lock, each only by its present writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ingest_service.database import Database, Transaction
from ingest_service.lifecycle import Change
from ingest_service.vocabulary.errors import (
    BackendDown,
    Draining,
    FileNotFound,
    IngestError,
    IngestNotFound,
    UploadClosed,
    UploadExpired,
    UploadStalled,
    WriterBusy,
    WriterSuperseded,
)
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Failure, File, Ingest
from ingest_service.vocabulary.states import FILE_OPEN, FileState, IngestState

_RECEIVING = frozenset({FileState.UPLOADING, FileState.VERIFYING})
_UNFINISHED = _RECEIVING | {FileState.PUBLISHING}
#: Nobody's words or bytes were wrong: the upload was cut off.
_INTERRUPTIONS = (BackendDown, Draining, UploadClosed, UploadStalled, WriterBusy, WriterSuperseded)
#: Bytes that are all here: an upload of such a file has nothing to send.
HAS_ALL_BYTES = frozenset({FileState.VERIFYING, FileState.PUBLISHING, FileState.STORED})


class FileMoves:
    """The transactions of an upload."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def begin(self, ingest_id: str, file_name: str) -> tuple[Ingest, File]:
        """PENDING -> UPLOADING with a new writer epoch; a file that has all its bytes is answered as it is.

        Raises IngestNotFound, FileNotFound, UploadClosed, UploadExpired, WriterBusy.
        """

        async def work(tx: Transaction) -> tuple[Ingest, File]:
            ingest = await self._locked(tx, ingest_id)
            file = ingest.file_named(file_name)
            if file is None:
                raise FileNotFound
            if file.state in HAS_ALL_BYTES:
                return ingest, file
            if ingest.state is IngestState.EXPIRED:
                raise UploadExpired
            if file.state not in FILE_OPEN or ingest.done:
                raise UploadClosed(_why_closed(ingest, file))
            if file.state is FileState.UPLOADING:
                raise WriterBusy("Another upload of this file is running.")
            change = Change(ingest, self._clock())
            change.file(file.id, FileState.UPLOADING, writer_epoch=file.writer_epoch + 1)
            after = await tx.ingests.save(ingest, change.after, change.events, change.now)
            begun = after.file_named(file_name)
            assert begun is not None
            return after, begun

        return await self._database.transact(work)

    async def checkpoint(self, file: File, committed_size: int) -> None:
        """Records durable bytes. Raises UploadClosed or WriterSuperseded if the file is no longer ours."""
        recorded = await self._database.transact(
            lambda tx: tx.files.checkpoint(file.id, file.writer_epoch, committed_size)
        )
        if not recorded:
            now = await self.read(file)
            # The state first: a cancel raises the epoch as well, and is no other writer.
            is_other_writer = now.state in _RECEIVING and now.writer_epoch != file.writer_epoch
            raise WriterSuperseded if is_other_writer else UploadClosed

    async def move(self, file: File, state: FileState, **values: Any) -> File:
        """Moves our file on. Raises UploadClosed or WriterSuperseded if it is no longer ours."""

        async def work(tx: Transaction) -> File:
            ingest = await self._locked(tx, file.ingest_id)
            current = self._ours(ingest, file)
            change = Change(ingest, self._clock())
            change.file(current.id, state, **values)
            after = await tx.ingests.save(ingest, change.after, change.events, change.now)
            return _by_id(after, file.id)

        return await self._database.transact(work)

    async def stored(self, file: File, file_format: str) -> File:
        """PUBLISHING -> STORED, the blob LIVE; the ingest follows. May be asked again."""

        async def work(tx: Transaction) -> File:
            ingest = await self._locked(tx, file.ingest_id)
            current = _by_id(ingest, file.id)
            if current.state is not FileState.PUBLISHING:
                return current
            assert current.sha256 is not None
            change = Change(ingest, self._clock())
            await tx.blobs.make_live(current.sha256, current.size_bytes, file_format, change.now)
            change.file(current.id, FileState.STORED, committed_size=current.size_bytes)
            after = await tx.ingests.save(ingest, change.after, change.events, change.now)
            return _by_id(after, file.id)

        return await self._database.transact(work)

    async def fail(self, file: File, error: Failure) -> bool:
        """The file failed for good, and its ingest; False if the file is no longer ours to fail."""

        async def work(tx: Transaction) -> bool:
            ingest = await tx.ingests.lock(file.ingest_id)
            if ingest is None:
                return False
            current = _by_id(ingest, file.id)
            if current.writer_epoch != file.writer_epoch or current.state not in _UNFINISHED:
                return False
            change = Change(ingest, self._clock())
            change.fail_file(current.id, error)
            await tx.ingests.save(ingest, change.after, change.events, change.now)
            return True

        return await self._database.transact(work)

    async def read(self, file: File) -> File:
        """The file as it is now. Raises IngestNotFound."""
        ingest = await self._database.read(lambda tx: tx.ingests.get(file.ingest_id))
        if ingest is None:
            raise IngestNotFound
        return _by_id(ingest, file.id)

    @staticmethod
    async def _locked(tx: Transaction, ingest_id: str) -> Ingest:
        ingest = await tx.ingests.lock(ingest_id)
        if ingest is None:
            raise IngestNotFound
        return ingest

    @staticmethod
    def _ours(ingest: Ingest, file: File) -> File:
        current = _by_id(ingest, file.id)
        if current.state not in _RECEIVING:
            raise UploadClosed(_why_closed(ingest, current))
        if current.writer_epoch != file.writer_epoch:
            raise WriterSuperseded
        return current


def failure_of(error: BaseException | None) -> Failure:
    """What is kept of what ended an upload; None: its stream just ended."""
    if isinstance(error, IngestError) and not isinstance(error, _INTERRUPTIONS):
        return Failure(error.reason, error.message, error.metadata)
    if error is None or isinstance(error, UploadClosed | asyncio.CancelledError):
        what = "The upload's stream ended before `finish`"
    elif isinstance(error, IngestError):
        what = f"The upload was cut off ({error.reason})"
    else:
        what = "The upload ended with an unforeseen fault of the service"
    return Failure(Reason.UPLOAD_INTERRUPTED, f"{what}; this version cannot resume it: push again.")


def _by_id(ingest: Ingest, file_id: str) -> File:
    return next(file for file in ingest.files if file.id == file_id)


def _why_closed(ingest: Ingest, file: File) -> str:
    failure = file.failure or ingest.failure
    why = f": {failure.message}" if failure else ""
    return f"This file takes no bytes any more; its ingest is {ingest.state}{why}"
