"""One Upload call that sends bytes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import google_crc32c

from ingest_service.formats import MAGIC_BYTES, recognise
from ingest_service.ingests.file_moves import FileMoves, failure_of
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.patience import Patience
from ingest_service.ingests.pipeline import ChunkPipeline
from ingest_service.storage import BlobStore
from ingest_service.vocabulary.digests import parse_digest
from ingest_service.vocabulary.errors import (
    ArgumentInvalid,
    ChunkChecksumMismatch,
    ChunkTooLarge,
    DigestMismatch,
    DigestRequired,
    IngestError,
    OffsetGap,
    SizeMismatch,
    StorageFull,
)
from ingest_service.vocabulary.records import File
from ingest_service.vocabulary.states import FileState

_log = logging.getLogger(__name__)
_PROGRESS_LOG_SECONDS = 30.0


class UploadSession:
    """Takes chunks, finishes the file, or leaves it in good order. One task calls it, one call at a time."""

    def __init__(
        self,
        file: File,
        moves: FileMoves,
        store: BlobStore,
        limits: Limits,
        pipeline: ChunkPipeline,
        *,
        patience: Patience,
    ) -> None:
        self.file = file
        self._moves = moves
        self._store = store
        self._limits = limits
        self._pipeline = pipeline
        self._patience = patience
        self._published = False
        self._head = b""
        self._format = ""
        self._interruption: IngestError | None = None
        self._on_interrupt: Callable[[], None] = lambda: None
        self._started = self._last_log = time.monotonic()

    @property
    def interruption(self) -> IngestError | None:
        """Set when the session has to end although the client did nothing wrong (cancel, drain)."""
        return self._interruption

    def on_interrupt(self, callback: Callable[[], None]) -> None:
        """`callback` is called once when `interruption` is set, for a caller that waits for the client."""
        self._on_interrupt = callback

    def interrupt(self, error: IngestError) -> None:
        """Asks the session's caller to end it with `error`."""
        if self._interruption is None:
            self._interruption = error
            self._on_interrupt()

    async def chunk(self, offset: int, data: bytes, crc32c: int | None) -> None:
        """Takes a chunk by the offset rules of design.md section 2; waits while the window is full.

        Raises ChunkTooLarge, ChunkChecksumMismatch, OffsetGap, SizeMismatch, FormatInvalid, ArgumentInvalid,
        and what an earlier chunk's write failed with.
        """
        if len(data) > self._limits.max_chunk_bytes:
            raise ChunkTooLarge(
                f"A chunk holds at most {self._limits.max_chunk_bytes} bytes; this one holds {len(data)}.",
                field="chunk.data",
                metadata={"limit_bytes": str(self._limits.max_chunk_bytes)},
            )
        if offset < 0:
            raise ArgumentInvalid("An offset is not negative.", field="chunk.offset")
        position = self._pipeline.received_bytes
        # On the loop on purpose: with the CPU's own instruction this costs less than parsing the chunk did.
        if crc32c is not None and google_crc32c.value(data) != crc32c:
            raise ChunkChecksumMismatch(metadata={"committed_size": str(position)})
        if offset > position:
            raise OffsetGap(metadata={"committed_size": str(position)})
        if offset + len(data) > self.file.size_bytes:
            raise SizeMismatch(
                f"The file was declared with {self.file.size_bytes} bytes; this chunk ends at"
                f" {offset + len(data)}."
            )
        fresh = data[position - offset :] if offset < position else data
        if fresh:
            self._recognise(fresh)
            await self._pipeline.put(fresh)

    async def complete(self, sha256: str) -> File:
        """All bytes were sent: verifies and publishes them. Runs to its end even if the client is gone.

        Raises DigestMalformed, DigestRequired, DigestMismatch, SizeMismatch, StorageFull, StorageFailed; the
        file has failed by then.
        """
        expected = self._expected(sha256)
        received = self._pipeline.received_bytes
        if received != self.file.size_bytes:
            raise SizeMismatch(
                f"The file was declared with {self.file.size_bytes} bytes; {received} came before `finish`."
            )
        await self._moves.move(self.file, FileState.VERIFYING)
        actual = await self._pipeline.drain()
        await self._pipeline.checkpoint()
        if expected and actual != expected:
            raise _mismatch(expected, actual)
        await self._moves.move(
            self.file, FileState.PUBLISHING, sha256=actual, committed_size=self.file.size_bytes
        )
        # The partial's lock is held until it has its new name.
        await self._store.publish(self.file.id, actual)
        self._published = True
        await self._pipeline.close()
        # The bytes are safe, only the word of it is missing.
        stored = await self._patience.until_done(lambda: self._moves.stored(self.file, self._format))
        seconds = time.monotonic() - self._started
        _log.info(
            "file stored",
            extra={
                "ingest": self.file.ingest_id,
                "file": self.file.file_name,
                "sha256": actual,
                "size_bytes": self.file.size_bytes,
                "seconds": round(seconds, 3),
            },
        )
        return stored

    async def abandon(self, error: BaseException | None) -> None:
        """The stream ended before `finish`, or `complete` failed: the file fails and its partial goes.

        Until resuming is there this is final, whatever the reason (issue "1 of 5", item 2). Rows are written
        before files: a crash in between leaves a partial that the next boot removes. Published bytes are
        left to the next boot, which finishes what their row began.
        """
        failure = failure_of(error)
        foreseen = error is None or isinstance(error, IngestError | asyncio.CancelledError)
        _log.warning(
            "upload ended before it was complete",
            extra={
                "ingest": self.file.ingest_id,
                "file": self.file.file_name,
                "reason": failure.reason,
                "detail": failure.message,
                "received_bytes": self._pipeline.received_bytes,
            },
            exc_info=None if foreseen else error,
        )
        await self._pipeline.close()
        if self._published:
            return

        async def fail() -> FileState:
            try:
                await self._moves.fail(self.file, failure)
            except StorageFull:
                # The database shares the full disk, and this partial may be what fills it. Its bytes are of
                # no use without a row that says more than UPLOADING.
                await self._store.remove_partial(self.file.id)
                raise
            return (await self._moves.read(self.file)).state

        if await self._patience.until_done(fail) is FileState.FAILED:
            await self._store.remove_partial(self.file.id)

    async def checkpointed(self, committed_size: int) -> None:
        """Called by the pipeline with each durable size."""
        await self._moves.checkpoint(self.file, committed_size)
        now = time.monotonic()
        if now - self._last_log >= _PROGRESS_LOG_SECONDS:
            self._last_log = now
            _log.info(
                "upload progress",
                extra={
                    "ingest": self.file.ingest_id,
                    "file": self.file.file_name,
                    "committed_size": committed_size,
                    "size_bytes": self.file.size_bytes,
                },
            )

    def _recognise(self, data: bytes) -> None:
        if self._format:
            return
        self._head += data[: MAGIC_BYTES - len(self._head)]
        if len(self._head) == min(MAGIC_BYTES, self.file.size_bytes):
            self._format = recognise(self._head, self.file.size_bytes)

    def _expected(self, sha256: str) -> str:
        declared = self.file.declared_sha256 or ""
        given = parse_digest(sha256, field="finish.sha256") if sha256 else ""
        if given and declared and given != declared:
            raise _mismatch(declared, given)
        if not given and not declared and self._limits.require_digest:
            raise DigestRequired(field="finish.sha256")
        return given or declared


def check_finished(file: File, sha256: str) -> None:
    """`finish` for a file that has its bytes already: fine if the digest is absent or the same."""
    given = parse_digest(sha256, field="finish.sha256") if sha256 else ""
    if given and file.sha256 and given != file.sha256:
        raise _mismatch(file.sha256, given)


def _mismatch(expected: str, actual: str) -> DigestMismatch:
    return DigestMismatch(metadata={"expected": expected, "actual": actual})
