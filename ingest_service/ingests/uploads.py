"""All Upload calls of this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from ingest_service.blobs import Inspector
from ingest_service.database import Database
from ingest_service.events.hub import wait_for_flag
from ingest_service.ingests.admission import Admission
from ingest_service.ingests.budget import ByteBudget
from ingest_service.ingests.file_moves import HAS_ALL_BYTES, FileMoves
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.patience import Patience
from ingest_service.ingests.pipeline import ChunkPipeline, Hasher
from ingest_service.ingests.session import UploadSession, check_finished
from ingest_service.ingests.slabs import SlabPool
from ingest_service.ingests.takeover import take_partial
from ingest_service.ingests.warm import WarmHashers
from ingest_service.storage import BlobStore
from ingest_service.vocabulary.errors import (
    Draining,
    IngestError,
    TooManyUploads,
    UploadClosed,
    WriterSuperseded,
)
from ingest_service.vocabulary.records import File, Ingest
from ingest_service.vocabulary.states import FileState

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.2
#: design.md section 4: the holder re-reads its epoch at least every second.
_WATCH_SECONDS = 0.5
#: A client whose upload failed hears of it after this long at most, even if the clean-up takes longer.
_CLEAN_UP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class StoredAlready:
    """An Upload of a file whose bytes are all here: chunks are dropped, `finish` answers the file."""

    file: File


class Uploads:
    """Opens sessions, sees them through when their clients are gone, ends them in good order on a drain."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        limits: Limits,
        *,
        clock: Callable[[], datetime],
        new_hasher: Callable[[], Hasher],
        new_inspector: Callable[[str, int], Inspector],
    ) -> None:
        self._moves = FileMoves(database, clock, Admission(store, limits, clock=clock))
        self._store = store
        self._limits = limits
        self._new_hasher = new_hasher
        self._new_inspector = new_inspector
        self._budget = ByteBudget(limits.total_window_bytes)
        self._slabs = SlabPool(limits.window_bytes)
        self._patience = Patience()
        self._warm = WarmHashers()
        self._watching: asyncio.Task[None] | None = None
        self._look = asyncio.Event()
        self._sessions: dict[str, UploadSession] = {}
        self._opening = 0
        self._background: set[asyncio.Task[Any]] = set()
        self._draining = False
        self._listeners: list[Callable[[Ingest, File], None]] = []
        self._stored_listeners: list[Callable[[str, int], None]] = []

    def on_open(self, listener: Callable[[Ingest, File], None]) -> None:
        """`listener` is called with each file that is going to receive bytes here."""
        self._listeners.append(listener)

    def on_stored(self, listener: Callable[[str, int], None]) -> None:
        """`listener` is called with digest and length of each file that was received and stored here."""
        self._stored_listeners.append(listener)

    def session_of(self, file_id: str) -> UploadSession | None:
        """The open session of a file, until its `finish`."""
        return self._sessions.get(file_id)

    @property
    def active(self) -> int:
        """Sessions that are open."""
        return len(self._sessions)

    @property
    def held_bytes(self) -> int:
        """Received-but-unwritten bytes of all sessions."""
        return self._budget.held_bytes

    @contextlib.asynccontextmanager
    async def receive(self, ingest_id: str, file_name: str) -> AsyncIterator[UploadSession | StoredAlready]:
        """A session for one Upload call; whatever ends the block, the file is left in good order.

        Raises IngestNotFound, FileNotFound, UploadClosed, UploadExpired, WriterBusy, WriterSuperseded,
        TooManyUploads, Draining, StorageFull, StorageFailed.
        """
        if self._draining:
            raise Draining
        # Those that are being opened count: a thousand calls may come within one opening.
        if len(self._sessions) + self._opening >= self._limits.max_uploads:
            raise TooManyUploads(metadata={"limit": str(self._limits.max_uploads)})
        opened = await self._opened(ingest_id, file_name)
        if isinstance(opened, StoredAlready):
            yield opened
            return
        error: BaseException | None = None
        try:
            yield opened
        except BaseException as caught:
            error = caught
            raise
        finally:
            if self._sessions.get(opened.file.id) is opened:
                del self._sessions[opened.file.id]
                await self._clean_up(self._leave(opened, error))

    async def current(self, ingest_id: str, file_name: str) -> File:
        """The file as it is. Raises IngestNotFound, FileNotFound."""
        return await self._moves.named(ingest_id, file_name)

    async def finish(self, upload: UploadSession | StoredAlready, sha256: str) -> File:
        """Completes the upload; waits at most `finish_wait_seconds`, then answers the file as it is.

        Raises what `UploadSession.complete` raises.
        """
        if isinstance(upload, StoredAlready):
            return await self._finished_before(upload.file, sha256)
        self._sessions.pop(upload.file.id)
        task = self._background_task(self._complete(upload, sha256))
        done, _ = await asyncio.wait({task}, timeout=self._limits.finish_wait_seconds)
        if done:
            return task.result()
        return await self._moves.read(upload.file)

    def cancelled(self, ingest: Ingest) -> None:
        """An ingest was cancelled: its sessions end."""
        for file in ingest.files:
            session = self._sessions.get(file.id)
            if session is not None and file.state is FileState.FAILED:
                session.interrupt(UploadClosed("The ingest was cancelled."))

    def look(self, ingest_id: str | None) -> None:
        """Another process may have changed this ingest (None: any): its sessions' rows are read at once."""
        if ingest_id is None or any(s.file.ingest_id == ingest_id for s in self._sessions.values()):
            self._look.set()

    async def drain(self, grace_seconds: float) -> None:
        """Takes no new uploads; lets running ones go on for `grace_seconds`, then ends them resumable."""
        self._draining = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_seconds
        while self._sessions and loop.time() < deadline:  # noqa: ASYNC110 (once, at shutdown)
            await asyncio.sleep(_POLL_SECONDS)
        for session in list(self._sessions.values()):
            session.interrupt(Draining())

    async def close(self) -> None:
        """Waits for what still runs in the background: publishing, and the end of interrupted sessions.

        What waits for the database is left to the next boot.
        """
        self._patience.end()
        while self._background:
            await asyncio.wait(set(self._background))
        # Last: an opening that still ran in the background may have started it.
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _open(self, ingest_id: str, file_name: str) -> UploadSession | StoredAlready:
        try:
            return await self._open_session(ingest_id, file_name)
        finally:
            self._opening -= 1

    async def _open_session(self, ingest_id: str, file_name: str) -> UploadSession | StoredAlready:
        ingest, begun = await self._moves.begin(ingest_id, file_name)
        if begun.state in HAS_ALL_BYTES:
            return StoredAlready(begun)
        # The epoch is written: a holder in this process hears of it at once, one in another within a second.
        holder = self._sessions.get(begun.id)
        if holder is not None:
            holder.interrupt(WriterSuperseded())
        partial, file = await take_partial(self._store, self._moves, begun, self._limits.takeover_seconds)
        hasher = self._warm.take(file.id, file.writer_epoch, file.committed_size)
        pipeline = ChunkPipeline(
            partial,
            hasher or self._new_hasher(),
            self._budget,
            self._limits,
            lambda committed_size: session.checkpointed(committed_size),  # noqa: PLW0108 (made below)
            slabs=self._slabs,
            start_bytes=file.committed_size,
        )
        session = UploadSession(
            file,
            self._moves,
            self._store,
            self._limits,
            pipeline,
            patience=self._patience,
            inspector=self._new_inspector(file.file_name, file.size_bytes),
            source=partial,
        )
        self._sessions[file.id] = session
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch_writers())
        for listener in self._listeners:
            listener(ingest, file)
        _log.info(
            "upload started",
            extra={
                "ingest": ingest_id,
                "file": file_name,
                "size_bytes": file.size_bytes,
                "committed_size": file.committed_size,
            },
        )
        return session

    async def _watch_writers(self) -> None:
        """Sessions whose file another process took, or whose ingest was cancelled there, end."""
        while True:
            await wait_for_flag(self._look, _WATCH_SECONDS)
            self._look.clear()
            asked = dict(self._sessions)
            if not asked:
                continue
            try:
                writers = await self._moves.writers(list(asked))
            except IngestError:
                continue
            except Exception:  # noqa: BLE001 (logged; a watcher that ended would leave two writers to the lock)
                _log.exception("unforeseen fault while looking who writes what")
                continue
            # Those that were asked about: of a session opened meanwhile the answer knows nothing.
            for file_id, session in asked.items():
                if self._sessions.get(file_id) is not session:
                    continue
                epoch, state = writers.get(file_id, (session.file.writer_epoch, FileState.FAILED))
                if epoch > session.file.writer_epoch and state is not FileState.FAILED:
                    session.interrupt(WriterSuperseded())
                elif state is FileState.FAILED:
                    session.interrupt(UploadClosed())

    async def _complete(self, session: UploadSession, sha256: str) -> File:
        try:
            stored = await session.complete(sha256)
        except BaseException as error:
            await self._clean_up(self._leave(session, error))
            raise
        for listener in self._stored_listeners:
            listener(stored.sha256 or "", stored.size_bytes)
        return stored

    async def _clean_up(self, work: Coroutine[Any, Any, Any]) -> None:
        """Sees `work` through in the background; its caller waits for it only for a moment."""
        await asyncio.wait({self._background_task(work)}, timeout=_CLEAN_UP_SECONDS)

    async def _leave(self, session: UploadSession, error: BaseException | None) -> None:
        try:
            await session.leave(error)
            self._warm.keep(session.file.id, session.file.writer_epoch, session.pipeline.hasher)
        except Exception:  # noqa: BLE001 (logged)
            # The client is to hear why its upload ended, not that the clean-up failed too; the sweep and the
            # next boot put right what is left.
            _log.exception("an upload could not be left in good order", extra={"file": session.file.id})

    async def _finished_before(self, file: File, sha256: str) -> File:
        """A file that was complete when this call began: wait for its end as long as `finish` may."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.finish_wait_seconds
        pause = _POLL_SECONDS
        while file.state in HAS_ALL_BYTES - {FileState.STORED} and loop.time() < deadline:
            await asyncio.sleep(pause)
            # Hundreds may wait here for a database that has enough to do.
            pause = min(pause * 1.5, 2.0)
            file = await self._moves.read(file)
        if file.state is FileState.FAILED:
            raise UploadClosed(file.failure.message if file.failure else None)
        check_finished(file, sha256)
        return file

    async def _opened(self, ingest_id: str, file_name: str) -> UploadSession | StoredAlready:
        """`_open`, seen through: a caller cancelled meanwhile must not leave an UPLOADING row behind."""
        # Here, not in the task: others are let in before it takes its first step.
        self._opening += 1
        opening = self._background_task(self._open(ingest_id, file_name))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError as cancelled:
            self._background_task(self._end_unused(opening, cancelled))
            raise

    async def _end_unused(
        self, opening: asyncio.Task[UploadSession | StoredAlready], cancelled: BaseException
    ) -> None:
        with contextlib.suppress(IngestError):
            opened = await opening
            if isinstance(opened, UploadSession):
                self._sessions.pop(opened.file.id, None)
                await self._leave(opened, cancelled)

    def _background_task(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # told to the caller, if there still is one
