"""`ImportFile`: a file of the import folder is looked at, gets its ingest, and is taken in behind that."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ingest_service.blobs import Inspector
from ingest_service.formats.recognise import GGUF, format_for
from ingest_service.ingests.agreement import check_file
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.names import check_file_name, parse_model_name
from ingest_service.ingests.requests import NewFile, NewIngest, check_request_id
from ingest_service.ingests.service import Ingests
from ingest_service.ingests.taking_in import TakingIn
from ingest_service.storage import BlobStore, Claim, ImportFolder, SourceFile
from ingest_service.vocabulary.errors import (
    Draining,
    FileNotFound,
    FormatInvalid,
    OptionUnsupported,
    RequestIdReused,
    SizeLimit,
    StorageFailed,
    TooManyUploads,
)
from ingest_service.vocabulary.records import Ingest
from ingest_service.vocabulary.states import FileRole, FileState

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
#: Files read at once: more would only have the disk's heads run to and fro.
_AT_ONCE = 2
#: Calls and files that wait for that; each holds a descriptor or two.
_MAX_WAITING = 64


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """An ImportFileRequest in the domain's words."""

    file_name: str
    model: str
    targets: Sequence[str] = ()
    store_only: bool = False
    request_id: str = ""

    def as_ingest(self, size_bytes: int) -> NewIngest:
        """The CreateIngestRequest that it stands for."""
        file = NewFile(self.file_name, FileRole.MODEL, size_bytes)
        return NewIngest(
            model=self.model,
            files=(file,),
            targets=tuple(self.targets),
            store_only=self.store_only,
            request_id=self.request_id,
        )


class Imports:
    """All imports of this process."""

    def __init__(
        self,
        store: BlobStore,
        folder: ImportFolder,
        ingests: Ingests,
        taking_in: TakingIn,
        limits: Limits,
        *,
        new_inspector: Callable[[str, int], Inspector],
    ) -> None:
        self._store = store
        self._folder = folder
        self._ingests = ingests
        self._taking_in = taking_in
        self._limits = limits
        self._new_inspector = new_inspector
        self._reading = asyncio.Semaphore(_AT_ONCE)
        self._running = asyncio.Semaphore(_AT_ONCE)
        self._calls: set[asyncio.Task[Any]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False

    async def import_file(self, request: ImportRequest) -> Ingest:
        """The ingest that takes the file in, once its header is accepted; the rest goes on behind the call.

        Raises FileNameInvalid, FileNotFound, FormatInvalid, SizeLimit, TooManyUploads, Draining, and what
        `Ingests.create` raises.
        """
        ingest, _ = await self.begin(request)
        return ingest

    async def begin(
        self, request: ImportRequest, *, may_end_former: bool = False
    ) -> tuple[Ingest, asyncio.Task[None] | None]:
        """As `import_file`; and the task that takes the file in, None if there is nothing to do here.

        `may_end_former`: the request_id belongs to this very file, so once that is stored, the file goes.
        """
        if self._stopping:
            raise Draining
        if len(self._tasks) + len(self._calls) >= _MAX_WAITING:
            raise TooManyUploads(metadata={"limit": str(_MAX_WAITING)})
        # A caller that leaves does not leave half of it undone.
        accepting = _task(self._calls, self._accept(request, may_end_former=may_end_former))
        return await asyncio.shield(accepting)

    async def resume(self) -> None:
        """What a crash left is gone on with; returns when that has ended."""
        for file_id in await self._folder.claimed():
            try:
                claim = await self._folder.claim_again(file_id)
            except StorageFailed:
                # One that cannot be opened is no reason to leave the others; the log has the cause.
                _log.exception("left an import whose claim cannot be read", extra={"claim": file_id})
                continue
            if claim is not None:
                source = await self._taking_in.source_of(claim)
                _log.info("going on with an import", extra={"ingest": claim.ingest_id, "file": claim.name})
                await asyncio.wait({_task(self._tasks, self._take_in(claim, source))})

    async def stop(self) -> None:
        """Ends at once; what is not done yet is gone on with at the next boot."""
        self._stopping = True
        # First: a call that is being accepted may begin one more.
        while self._calls:
            await asyncio.wait(set(self._calls))
        # A task that has not begun yet could not let go of what it was given.
        await asyncio.sleep(0)
        # Once each: a second cancel would break off the letting go.
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _accept(
        self, request: ImportRequest, *, may_end_former: bool
    ) -> tuple[Ingest, asyncio.Task[None] | None]:
        check_file_name(request.file_name, field="file_name")
        check_request_id(request.request_id)
        parse_model_name(request.model)
        former = await self._made_before(request)
        if former is not None and (
            former.files[0].state is FileState.FAILED
            or (former.files[0].state is FileState.STORED and not may_end_former)
        ):
            return former, None
        try:
            source = await self._folder.open(request.file_name)
        except FileNotFound:
            # It is being taken in, and has left the folder for that.
            if former is not None:
                return former, None
            raise
        try:
            ingest = former or await self._create(request, source)
            claim = await self._folder.claim(ingest.files[0].id, ingest.id, source)
        except BaseException:
            await source.close()
            raise
        if claim is None:
            await source.close()
            return ingest, None
        if claim.identity != source.identity:
            # It was claimed before a crash, and is another file now.
            await source.close()
            left = await self._taking_in.source_of(claim)
            return ingest, _task(self._tasks, self._take_in(claim, left))
        return ingest, _task(self._tasks, self._take_in(claim, source))

    async def _made_before(self, request: ImportRequest) -> Ingest | None:
        former = await self._ingests.by_request_id(request.request_id) if request.request_id else None
        if former is None:
            return None
        body = request.as_ingest(former.files[0].size_bytes)
        if former.request_fingerprint != body.fingerprint():
            raise RequestIdReused(field="request_id")
        return former

    async def _create(self, request: ImportRequest, source: SourceFile) -> Ingest:
        await self._check_content(request.file_name, source)
        needs_room = not await self._store.adopts(source)
        return await self._ingests.create(request.as_ingest(source.size_bytes), needs_room=needs_room)

    async def _check_content(self, name: str, source: SourceFile) -> None:
        """Refuses what an upload of it would be refused for, before anything is made."""
        if format_for(name) != GGUF:
            message = "Only GGUF files can be imported: push the files of a safetensors set instead."
            raise OptionUnsupported(message, field="file_name")
        if not 0 < source.size_bytes <= self._limits.max_file_bytes:
            raise SizeLimit(
                f"A file has 1 to {self._limits.max_file_bytes} bytes; this one has {source.size_bytes}.",
                field="file_name",
                metadata={"limit_bytes": str(self._limits.max_file_bytes)},
            )
        inspector = self._new_inspector(name, source.size_bytes)
        async with self._reading:
            try:
                await inspector.catch_up(source, source.size_bytes)
            except OSError as error:
                raise StorageFailed("The file in the import folder cannot be read.") from error
        if inspector.inspection is None:
            raise FormatInvalid("The file ends within its header.", field="file")
        check_file(NewFile(name, FileRole.MODEL, source.size_bytes), inspector.inspection.facts)

    async def _take_in(self, claim: Claim, source: SourceFile | None) -> None:
        try:
            await self._running.acquire()
        except BaseException:
            await self._folder.release(claim)
            if source is not None:
                await source.close()
            raise
        try:
            await self._taking_in.run(claim, source)
        finally:
            self._running.release()


def _task(running: set[asyncio.Task[Any]], work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    def ended(task: asyncio.Task[Any]) -> None:
        running.discard(task)
        with contextlib.suppress(asyncio.CancelledError):
            task.exception()  # told to the caller, if there still is one

    task = asyncio.create_task(work)
    running.add(task)
    task.add_done_callback(ended)
    return task
