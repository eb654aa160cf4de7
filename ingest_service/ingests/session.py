"""One Upload call that sends bytes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from ingest_service.blobs import Inspector
from ingest_service.ingests.agreement import check_file
from ingest_service.ingests.checksum import crc32c_of
from ingest_service.ingests.file_moves import FileMoves, failure_of
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.patience import Patience
from ingest_service.ingests.pipeline import ChunkPipeline
from ingest_service.ingests.takeover import drop_uncommitted
from ingest_service.storage import BlobStore, PartialFile
from ingest_service.vocabulary.digests import parse_digest
from ingest_service.vocabulary.errors import (
    ArgumentInvalid,
    ChunkChecksumMismatch,
    ChunkTooLarge,
    DigestMismatch,
    DigestRequired,
    FormatInvalid,
    IngestError,
    OffsetGap,
    SizeMismatch,
    StorageFull,
    WriterBusy,
    WriterSuperseded,
)
from ingest_service.vocabulary.records import File, Inspection
from ingest_service.vocabulary.states import FileState

_log = logging.getLogger(__name__)
_PROGRESS_LOG_SECONDS = 30.0
#: After these the file's bytes are of no use: it fails. After all others it can be resumed.
_FINAL = (DigestMismatch, FormatInvalid, SizeMismatch, StorageFull)


class UploadSession:
    """Takes chunks, finishes the file, or leaves it resumable. One task calls it, one call at a time."""

    def __init__(
        self,
        file: File,
        moves: FileMoves,
        store: BlobStore,
        limits: Limits,
        pipeline: ChunkPipeline,
        *,
        patience: Patience,
        inspector: Inspector,
        source: PartialFile,
    ) -> None:
        self.file = file
        self.pipeline = pipeline
        self._moves = moves
        self._store = store
        self._limits = limits
        self._patience = patience
        self._publishing = False
        self._inspector = inspector
        #: What is committed is read from it once, for the inspector.
        self._source = source
        self._is_accepted = False
        self._interruption: IngestError | None = None
        self._on_interrupt: Callable[[], None] = lambda: None
        self._started = self._last_log = time.monotonic()

    @property
    def readable_bytes(self) -> int:
        """So much may be read from the partial; 0 while the file's header is not accepted."""
        return self.pipeline.written_bytes if self._is_accepted else 0

    @property
    def interruption(self) -> IngestError | None:
        """Set when the session has to end although its client did nothing wrong (takeover, cancel, drain)."""
        return self._interruption

    def on_interrupt(self, callback: Callable[[], None]) -> None:
        """`callback` is called once when `interruption` is set, for a caller that waits for the client."""
        self._on_interrupt = callback

    def interrupt(self, error: IngestError) -> None:
        """Asks the session's caller to end it with `error`."""
        if self._interruption is None:
            self._interruption = error
            self._on_interrupt()

    async def chunk(self, offset: int, data: bytes | memoryview, crc32c: int | None) -> None:
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
        position = self.pipeline.received_bytes
        # On the loop on purpose: with the CPU's own instruction this costs less than parsing the chunk did.
        if crc32c is not None and crc32c_of(data) != crc32c:
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
            # Before it is written: a file that is refused is refused with the chunk that shows its fault.
            await self._inspect(fresh)
            await self.pipeline.put(fresh)

    async def complete(self, sha256: str) -> File:
        """All bytes were sent: verifies and publishes them. Runs to its end even if the client is gone.

        Raises DigestMalformed, DigestRequired, DigestMismatch, SizeMismatch, StorageFull, StorageFailed,
        UploadClosed, WriterSuperseded; call `leave` then.
        """
        expected = self._expected(sha256)
        received = self.pipeline.received_bytes
        if received != self.file.size_bytes:
            raise SizeMismatch(
                f"The file was declared with {self.file.size_bytes} bytes; {received} came before `finish`."
            )
        inspection = await self._inspect(b"")
        if inspection is None:
            raise FormatInvalid("The file ends within its header.", field="file")
        await self._moves.move(self.file, FileState.VERIFYING)
        actual = await self.pipeline.drain()
        await self.pipeline.checkpoint()
        if expected and actual != expected:
            raise _mismatch(expected, actual)
        await self._moves.move(
            self.file, FileState.PUBLISHING, sha256=actual, committed_size=self.file.size_bytes
        )
        # From here on the bytes are right, and whoever comes across the row finishes what it began.
        self._publishing = True
        # The partial's lock is held until it has its new name.
        await self._store.publish(self.file.id, actual)
        await self.pipeline.close()
        # The bytes are safe, only the word of it is missing.
        stored = await self._patience.until_done(lambda: self._moves.stored(self.file, inspection))
        if stored.state is FileState.FAILED:
            assert stored.failure is not None
            facts = stored.failure.metadata
            raise FormatInvalid(stored.failure.message, field=facts.get("field"), metadata=facts)
        _log.info(
            "file stored",
            extra={
                **self._names(),
                "sha256": actual,
                "size_bytes": self.file.size_bytes,
                "seconds": round(time.monotonic() - self._started, 3),
            },
        )
        return stored

    async def leave(self, error: BaseException | None) -> None:
        """The stream ended before `finish`, or `complete` failed; None: its client is just gone.

        Leaves the file resumable from as many of its bytes as can be made durable; or failed, its partial
        removed, if they are of no use. `error` gets the committed size that it promises in its metadata.
        """
        foreseen = error is None or isinstance(error, IngestError | asyncio.CancelledError)
        if isinstance(error, _FINAL) and not self._publishing:
            await self.pipeline.close()
            await self._fail(error)
        else:
            await self._suspend(error)
        _log.log(
            logging.INFO if foreseen else logging.ERROR,
            "upload ended before it was complete",
            extra={
                **self._names(),
                "reason": error.reason if isinstance(error, IngestError) else "stream ended",
                "committed_size": self.pipeline.committed_bytes,
            },
            exc_info=None if foreseen else error,
        )
        if isinstance(error, OffsetGap | ChunkChecksumMismatch):
            error.metadata["committed_size"] = str(self.pipeline.committed_bytes)

    async def checkpointed(self, committed_size: int) -> None:
        """Called by the pipeline with each durable size."""
        await self._moves.checkpoint(self.file, committed_size)
        now = time.monotonic()
        if now - self._last_log >= _PROGRESS_LOG_SECONDS:
            self._last_log = now
            _log.info(
                "upload progress",
                extra={
                    **self._names(),
                    "committed_size": committed_size,
                    "size_bytes": self.file.size_bytes,
                },
            )

    async def _suspend(self, error: BaseException | None) -> None:
        try:
            # One who took over must not be kept waiting, and what we have is no longer ours to write.
            if not self._publishing and not isinstance(error, WriterSuperseded):
                await self.pipeline.suspend()
        except IngestError as late:
            _log.warning(
                "the last bytes were not made durable", extra={**self._names(), "reason": late.reason}
            )
        except Exception:  # noqa: BLE001 (logged; the pipeline tells again what broke it, and the row must follow)
            _log.exception("the last bytes were not made durable", extra=self._names())
        finally:
            await self.pipeline.close()
        if not self._publishing:
            await self._patience.until_done(lambda: self._moves.back_to_uploading(self.file))
            await self._remove_if_failed()

    async def _fail(self, error: IngestError) -> None:
        if isinstance(error, StorageFull):
            # The database may share the full disk: bytes that were never committed make room for its row.
            await drop_uncommitted(self._store, self._moves, self.file)
        # The partial goes only after the row says so: until then its committed bytes are somebody's.
        await self._patience.until_done(lambda: self._moves.fail(self.file, failure_of(error)))
        await self._remove_if_failed()

    async def _remove_if_failed(self) -> None:
        """Failed by us, or by a cancel meanwhile: nobody needs the bytes."""
        current = await self._patience.until_done(lambda: self._moves.read(self.file))
        if current.state is FileState.FAILED:
            # Whoever holds it now finds the row FAILED and removes it in turn.
            with contextlib.suppress(WriterBusy):
                await self._store.remove_partial(self.file.id)

    async def _inspect(self, data: bytes | memoryview) -> Inspection | None:
        """Brings the next bytes through the format's reader, what was committed before them first."""
        if not self._is_accepted:
            await self._inspector.catch_up(self._source, self.pipeline.received_bytes)
            await self._inspector.feed(bytes(data))
            if inspection := self._inspector.inspection:
                check_file(self.file, inspection.facts)
                await self._moves.inspected(self.file, inspection)
                self._is_accepted = True
        return self._inspector.inspection

    def _expected(self, sha256: str) -> str:
        declared = self.file.declared_sha256 or ""
        given = parse_digest(sha256, field="finish.sha256") if sha256 else ""
        if given and declared and given != declared:
            raise _mismatch(declared, given)
        if not given and not declared and self._limits.require_digest:
            raise DigestRequired(field="finish.sha256")
        return given or declared

    def _names(self) -> dict[str, str]:
        return {"ingest": self.file.ingest_id, "file": self.file.file_name}


def check_finished(file: File, sha256: str) -> None:
    """`finish` for a file that has its bytes already: fine if the digest is absent or the same."""
    given = parse_digest(sha256, field="finish.sha256") if sha256 else ""
    known = file.sha256 or file.declared_sha256
    if given and known and given != known:
        raise _mismatch(known, given)


def _mismatch(expected: str, actual: str) -> DigestMismatch:
    return DigestMismatch(metadata={"expected": expected, "actual": actual})
