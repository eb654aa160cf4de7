"""One writer per file: from a new epoch to an open, locked, truncated partial (design.md section 4)."""

from __future__ import annotations

import asyncio
import logging

from ingest_service.ingests.file_moves import LOST_BYTES, FileMoves, failure_of
from ingest_service.storage import BlobStore, PartialFile
from ingest_service.vocabulary.errors import (
    IngestError,
    SizeMismatch,
    StorageFailed,
    UploadClosed,
    WriterBusy,
    WriterSuperseded,
)
from ingest_service.vocabulary.records import File
from ingest_service.vocabulary.states import FileState

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.05
#: How often one who waits for the lock looks whether it was overtaken.
_LOOK_SECONDS = 0.5


async def take_partial(
    store: BlobStore, moves: FileMoves, file: File, wait_seconds: float
) -> tuple[PartialFile, File]:
    """The partial of a file whose epoch is ours, and its row as re-read under the lock.

    Waits for the former holder, who was told to let go, at most `wait_seconds`; then WriterBusy. Raises
    WriterSuperseded or UploadClosed if the row is no longer ours, StorageFailed if committed bytes are gone,
    SizeMismatch if it is an import whose file was changed (in both cases the file has failed by then).
    """
    partial, is_new = await _locked(store, moves, file, wait_seconds)
    try:
        return partial, await _prepare(partial, moves, file)
    except _NoLongerOurs as lost:
        if is_new and lost.state is not FileState.UPLOADING:
            # Another writer finished the file just before we made this empty one.
            await partial.remove()
        else:
            await partial.close()
        raise lost.error from None
    except BaseException:
        await partial.close()
        raise


class _NoLongerOurs(Exception):
    def __init__(self, error: IngestError, state: FileState) -> None:
        super().__init__(state)
        self.error, self.state = error, state


async def _locked(
    store: BlobStore, moves: FileMoves, file: File, wait_seconds: float
) -> tuple[PartialFile, bool]:
    """The partial, and whether it was made just now."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_seconds
    next_look = loop.time() + _LOOK_SECONDS
    while True:
        try:
            partial = await store.open_partial(file.id)
            if partial is not None:
                return partial, False
            # It may be gone because another writer has finished the file: then none must be made.
            await _look(moves, file)
            return await store.create_partial(file.id), True
        except WriterBusy:
            waited_enough = loop.time() >= deadline
            if waited_enough or loop.time() >= next_look:
                # Who was overtaken must hear that: after "busy" its client would come back, and take the
                # file from the one who came last.
                await _look(moves, file)
                next_look = loop.time() + _LOOK_SECONDS
            if waited_enough:
                raise
        await asyncio.sleep(_POLL_SECONDS)


async def _look(moves: FileMoves, file: File) -> None:
    try:
        _check_ours(await moves.read(file), file)
    except _NoLongerOurs as lost:
        raise lost.error from None


def _check_ours(current: File, file: File) -> None:
    # First: a cancel and an expiry raise the epoch as well, and are no other writer.
    if current.state is FileState.FAILED:
        raise _NoLongerOurs(UploadClosed(), current.state)
    if current.writer_epoch != file.writer_epoch:
        raise _NoLongerOurs(WriterSuperseded(), current.state)
    if current.state is not FileState.UPLOADING:
        raise _NoLongerOurs(UploadClosed(), current.state)


def changed_import(partial: PartialFile, size_bytes: int, committed_size: int) -> SizeMismatch | None:
    """Why an import fails whose file has another length now; None for all other partials.

    A shared file is committed as a whole or not at all, and only its owner can have changed it since.
    """
    if partial.is_shared and committed_size and size_bytes != committed_size:
        return import_changed()
    return None


def import_changed() -> SizeMismatch:
    """A file of the import folder was written to while it was taken in."""
    return SizeMismatch("The file changed while it was taken in; it is left in the import folder.")


async def _prepare(partial: PartialFile, moves: FileMoves, file: File) -> File:
    current = await moves.read(file)
    _check_ours(current, file)
    size_bytes = await partial.size_bytes()
    changed = changed_import(partial, size_bytes, current.committed_size)
    if changed is not None:
        await moves.fail(current, failure_of(changed))
        raise changed
    if size_bytes < current.committed_size:
        _log.error(
            "a partial is shorter than its committed size",
            extra={"ingest": file.ingest_id, "file": file.file_name, "size_bytes": size_bytes,
                   "committed_size": current.committed_size},
        )  # fmt: skip
        await moves.fail(current, LOST_BYTES)
        raise StorageFailed(LOST_BYTES.message)
    # What lies behind was never acknowledged, and may be anything.
    await partial.truncate(current.committed_size)
    return current


async def drop_uncommitted(store: BlobStore, moves: FileMoves, file: File) -> None:
    """Cuts a partial that nobody writes to what is committed. Does nothing where that cannot be done."""
    try:
        partial = await store.open_partial(file.id)
    except IngestError:
        return
    if partial is None:
        return
    try:
        current = await moves.read(file)
        # Another writer's bytes are not ours to cut.
        if current.writer_epoch == file.writer_epoch:
            await partial.truncate(current.committed_size)
    except IngestError:
        _log.warning("uncommitted bytes could not be dropped", extra={"file": file.id})
    finally:
        await partial.close()
