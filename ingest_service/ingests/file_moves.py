"""Moves of one file's row: each one transaction under the ingest's lock, each only by its present writer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from ingest_service.database import Database, Transaction
from ingest_service.ingests.admission import Admission
from ingest_service.ingests.agreement import check_quantize, check_together
from ingest_service.ingests.order import keep_order
from ingest_service.lifecycle import Change
from ingest_service.vocabulary.errors import (
    FileNotFound,
    FormatInvalid,
    IngestError,
    IngestNotFound,
    UploadClosed,
    UploadExpired,
    Violation,
    WriterSuperseded,
)
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Failure, File, Ingest, Inspection
from ingest_service.vocabulary.states import FILE_OPEN, FileState, IngestState
from ingest_service.vocabulary.text import clean

_RECEIVING = frozenset({FileState.UPLOADING, FileState.VERIFYING})
_UNFINISHED = _RECEIVING | {FileState.PUBLISHING}
#: Of each defect beside the first; there are at most 20.
_MAX_DESCRIPTION_BYTES = 400
#: Bytes that are all here: an upload of such a file has nothing to send.
HAS_ALL_BYTES = frozenset({FileState.VERIFYING, FileState.PUBLISHING, FileState.STORED})

#: Of a file whose committed bytes are gone.
LOST_BYTES = Failure(
    Reason.STORAGE_FAILED, "The store lost bytes of this file that were safe: push it again."
)


class FileMoves:
    """The transactions of an upload."""

    def __init__(
        self, database: Database, clock: Callable[[], datetime], admission: Admission | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._admission = admission

    async def begin(self, ingest_id: str, file_name: str) -> tuple[Ingest, File]:
        """UPLOADING with a new writer epoch, which takes the file from whoever writes it; a file that has
        all its bytes is answered as it is.

        Raises IngestNotFound, FileNotFound, UploadClosed, UploadExpired, StorageFull.
        """
        usable = await self._admission.usable_bytes() if self._admission else 0

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
            is_first = file.committed_size == 0
            if self._admission and is_first and self._admission.has_lapsed(file.progress_at):
                # Nobody sent its first byte in time, and the room may have gone to another.
                await self._admission.check(tx, file.size_bytes, usable)
            change = Change(ingest, self._clock())
            change.file(
                file.id, FileState.UPLOADING, writer_epoch=file.writer_epoch + 1, progress_at=change.now
            )
            after = await tx.ingests.save(ingest, change.after, change.events, change.now)
            begun = after.file_named(file_name)
            assert begun is not None
            return after, begun

        return await self._database.transact(work)

    async def checkpoint(self, file: File, committed_size: int) -> None:
        """Records durable bytes. Raises UploadClosed or WriterSuperseded if the file is no longer ours."""
        recorded = await self._database.transact(
            lambda tx: tx.files.checkpoint(file.id, file.writer_epoch, committed_size, self._clock())
        )
        if not recorded:
            now = await self.read(file)
            # The state first: a cancel raises the epoch as well, and is no other writer.
            is_other_writer = now.state in _RECEIVING and now.writer_epoch != file.writer_epoch
            raise WriterSuperseded if is_other_writer else UploadClosed

    async def inspected(self, file: File, inspection: Inspection) -> None:
        """Tells what the header of our file says. Raises UploadClosed, WriterSuperseded, FormatInvalid if the
        ingest's options do not go with it."""

        async def work(tx: Transaction) -> None:
            ingest = await self._locked(tx, file.ingest_id)
            current = self._ours(ingest, file)
            check_quantize(current, inspection.facts, ingest.options)
            change = Change(ingest, self._clock())
            change.inspected(current.id, inspection)
            if change.after != ingest:
                await tx.ingests.save(ingest, change.after, change.events, change.now)

        await self._database.transact(work)

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

    async def stored(self, file: File, inspection: Inspection) -> File:
        """PUBLISHING -> STORED, the blob LIVE; the ingest follows. May be asked again.

        FAILED instead if the model's files are all there now, and do not fit together.
        """

        async def work(tx: Transaction) -> File:
            ingest = await self._locked(tx, file.ingest_id)
            current = _by_id(ingest, file.id)
            if current.state is not FileState.PUBLISHING:
                return current
            assert current.sha256 is not None
            change = Change(ingest, self._clock())
            await tx.blobs.make_live(current.sha256, current.size_bytes, inspection, change.now)
            change.inspected(current.id, inspection)
            if refused := await _why_not_together(tx, ingest, current, inspection):
                change.fail_file(current.id, failure_of(refused))
            else:
                change.file(current.id, FileState.STORED, committed_size=current.size_bytes)
                await keep_order(tx, change)
            after = await tx.ingests.save(ingest, change.after, change.events, change.now)
            return _by_id(after, file.id)

        return await self._database.transact(work)

    async def back_to_uploading(self, file: File) -> None:
        """VERIFYING -> UPLOADING, if the file is still ours: it can be tried again."""

        async def work(tx: Transaction) -> None:
            ingest = await self._locked(tx, file.ingest_id)
            current = _by_id(ingest, file.id)
            if current.state is FileState.VERIFYING and current.writer_epoch == file.writer_epoch:
                change = Change(ingest, self._clock())
                change.file(current.id, FileState.UPLOADING)
                await tx.ingests.save(ingest, change.after, change.events, change.now)

        await self._database.transact(work)

    async def writers(self, file_ids: Sequence[str]) -> dict[str, tuple[int, FileState]]:
        """Epoch and state of each file, in one query."""
        return await self._database.read(lambda tx: tx.files.writers(file_ids))

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

    async def named(self, ingest_id: str, file_name: str) -> File:
        """The file as it is now. Raises IngestNotFound, FileNotFound."""
        ingest = await self._database.read(lambda tx: tx.ingests.get(ingest_id))
        if ingest is None:
            raise IngestNotFound
        file = ingest.file_named(file_name)
        if file is None:
            raise FileNotFound
        return file

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


async def _why_not_together(
    tx: Transaction, ingest: Ingest, last: File, inspection: Inspection
) -> FormatInvalid | None:
    others = [file for file in ingest.files if file.id != last.id]
    if any(file.state is not FileState.STORED for file in others):
        return None
    blobs = await tx.blobs.some([file.sha256 for file in others if file.sha256])
    facts = [(file, blobs[file.sha256].facts or {}) for file in others if file.sha256 in blobs]
    try:
        check_together([*facts, (last, inspection.facts)])
    except FormatInvalid as refused:
        return refused
    return None


def failure_of(error: IngestError) -> Failure:
    """What is kept of an error that ended a file."""
    if not isinstance(error, FormatInvalid):
        return Failure(error.reason, error.message, error.metadata)
    violations = [Violation(one.field, clean(one.description, _MAX_DESCRIPTION_BYTES)) for one in error.more]
    if error.left_out and violations:
        violations[-1] = Violation("file", f"And {error.left_out + 1} more.")
    return Failure(error.reason, error.message, error.metadata, tuple(violations))


def _by_id(ingest: Ingest, file_id: str) -> File:
    return next(file for file in ingest.files if file.id == file_id)


def _why_closed(ingest: Ingest, file: File) -> str:
    failure = file.failure or ingest.failure
    why = f": {failure.message}" if failure else ""
    return f"This file takes no bytes any more; its ingest is {ingest.state}{why}"
