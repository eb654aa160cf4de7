"""All Upload calls of this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from ingest_service.database import Database
from ingest_service.ingests.budget import ByteBudget
from ingest_service.ingests.file_moves import HAS_ALL_BYTES, FileMoves, failure_of
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.patience import Patience
from ingest_service.ingests.pipeline import ChunkPipeline, Hasher
from ingest_service.ingests.session import UploadSession, check_finished
from ingest_service.storage import BlobStore
from ingest_service.vocabulary.errors import Draining, IngestError, UploadClosed
from ingest_service.vocabulary.records import File, Ingest
from ingest_service.vocabulary.states import FileState

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.2
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
    ) -> None:
        self._moves = FileMoves(database, clock)
        self._store = store
        self._limits = limits
        self._new_hasher = new_hasher
        self._budget = ByteBudget(limits.total_window_bytes)
        self._patience = Patience()
        self._sessions: dict[str, UploadSession] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._draining = False

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

        Raises IngestNotFound, FileNotFound, UploadClosed, UploadExpired, WriterBusy, Draining, StorageFull.
        """
        if self._draining:
            raise Draining
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
                await self._clean_up(self._abandon(opened, error))

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

    async def _open(self, ingest_id: str, file_name: str) -> UploadSession | StoredAlready:
        _, file = await self._moves.begin(ingest_id, file_name)
        if file.state in HAS_ALL_BYTES:
            return StoredAlready(file)
        try:
            partial = await self._store.create_partial(file.id)
        except Exception as error:
            failure = failure_of(error)
            await self._clean_up(self._patience.until_done(lambda: self._moves.fail(file, failure)))
            raise
        pipeline = ChunkPipeline(
            partial,
            self._new_hasher(),
            self._budget,
            self._limits,
            lambda committed_size: session.checkpointed(committed_size),  # noqa: PLW0108 (made below)
        )
        session = UploadSession(
            file, self._moves, self._store, self._limits, pipeline, patience=self._patience
        )
        self._sessions[file.id] = session
        _log.info(
            "upload started",
            extra={"ingest": ingest_id, "file": file_name, "size_bytes": file.size_bytes},
        )
        return session

    async def _complete(self, session: UploadSession, sha256: str) -> File:
        try:
            return await session.complete(sha256)
        except BaseException as error:
            await self._clean_up(self._abandon(session, error))
            raise

    async def _clean_up(self, work: Coroutine[Any, Any, Any]) -> None:
        """Sees `work` through in the background; its caller waits for it only for a moment."""
        await asyncio.wait({self._background_task(work)}, timeout=_CLEAN_UP_SECONDS)

    @staticmethod
    async def _abandon(session: UploadSession, error: BaseException | None) -> None:
        try:
            await session.abandon(error)
        except Exception:  # noqa: BLE001 (logged)
            # The client is to hear why its upload failed, not that the clean-up failed too; the next boot
            # puts right what is left.
            _log.exception("an upload that failed could not be cleaned up", extra={"file": session.file.id})

    async def _finished_before(self, file: File, sha256: str) -> File:
        """A file that was complete when this call began: wait for its end as long as `finish` may."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.finish_wait_seconds
        while file.state in HAS_ALL_BYTES - {FileState.STORED} and loop.time() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
            file = await self._moves.read(file)
        if file.state is FileState.FAILED:
            raise UploadClosed(file.failure.message if file.failure else None)
        check_finished(file, sha256)
        return file

    async def _opened(self, ingest_id: str, file_name: str) -> UploadSession | StoredAlready:
        """`_open`, seen through: a caller cancelled meanwhile must not leave an UPLOADING row behind."""
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
                await self._abandon(opened, cancelled)

    def _background_task(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # told to the caller, if there still is one
