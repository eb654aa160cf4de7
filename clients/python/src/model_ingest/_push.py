"""A whole push: digest if wished, create, send each file, follow to the end."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from google.protobuf.json_format import MessageToDict

from model_ingest._backoff import Backoff
from model_ingest._connection import Connection
from model_ingest._errors import (
    IngestError,
    InvalidRequestError,
    LocalFileError,
    NotFoundError,
    NotServedError,
    StalledError,
)
from model_ingest._files import LocalFile, local_files
from model_ingest._follow import follow
from model_ingest._limits import Limits
from model_ingest._memory import PushMemory, Remembered
from model_ingest._retry import repeat, run
from model_ingest._source import FileSource
from model_ingest._status import from_ingest
from model_ingest._updates import Accepted, Hashing, OnUpdate, Update, Waiting
from model_ingest._upload import COMPLETE, UploadStrategy, chunk_bytes_for
from model_ingest.v1.ingest_service_pb2 import (
    Capabilities,
    CreateIngestRequest,
    FileSpec,
    GetCapabilitiesRequest,
    GetIngestRequest,
)
from model_ingest.v1.resources_pb2 import CreateOptions, File, Ingest

# After a failed upload: how long the watch may still deliver what the server says about it.
_LAST_WORDS_SECONDS: Final = 2.0
# How often a file that is being verified is asked after.
_SETTLE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """What is pushed, and how."""

    paths: Sequence[Path]
    name: str
    roles: Sequence[tuple[str, Path]] = ()
    options: CreateOptions = field(default_factory=CreateOptions)
    targets: Sequence[str] = ()
    store_only: bool = False
    declare_digest: bool = False
    detach: bool = False


class Push:
    """One push. Use it once."""

    def __init__(
        self, connection: Connection, limits: Limits, options: PushOptions, on_update: OnUpdate | None
    ) -> None:
        self._connection = connection
        self._limits = limits
        self._options = options
        self._on_update = on_update
        self._capabilities = Capabilities()
        self._files: dict[str, LocalFile] = {}
        self._sources: dict[str, FileSource] = {}
        self._is_sending = True

    async def run(self) -> Ingest:
        """The ingest once it ended well (with `detach`: once the bytes are there); raises why it did not."""
        async with AsyncExitStack() as stack:
            await self._open(stack)
            self._capabilities = await capabilities(self._connection)
            memory = self._memory()
            ingest = await self._begun_before(memory) or await self._create(memory)
            self._tell(Accepted(ingest, self._capabilities.resumable))
            if not ingest.done:
                try:
                    ingest = await self._send_and_follow(ingest)
                except IngestError as error:
                    error.ingest = error.ingest or ingest
                    if error.ingest.done:
                        await asyncio.to_thread(memory.forget)
                    raise
        if ingest.done or self._options.detach:
            await asyncio.to_thread(memory.forget)
        failed = from_ingest(ingest) if ingest.done else None
        if failed is not None:
            raise failed
        return ingest

    async def _open(self, stack: AsyncExitStack) -> None:
        options = self._options
        for file in await asyncio.to_thread(local_files, options.paths, options.roles):
            if file.name in self._sources:
                raise LocalFileError(f"two files would both be called {file.name}")
            self._files[file.name] = file
            self._sources[file.name] = await stack.enter_async_context(FileSource(file.path))

    def _memory(self) -> PushMemory:
        options = self._options
        return PushMemory.of(
            self._connection.server,
            [(source.path, source.fingerprint) for source in self._sources.values()],
            {
                "name": options.name,
                "targets": list(options.targets),
                "store_only": options.store_only,
                "roles": [file.role for file in self._files.values()],
                "create": MessageToDict(options.options),
            },
        )

    async def _begun_before(self, memory: PushMemory) -> Ingest | None:
        """The ingest of an earlier run of the same push, if it can still be gone on with."""
        before = await asyncio.to_thread(memory.load)
        if before is None or not before.ingest:
            return None
        request = GetIngestRequest(name=before.ingest)
        try:
            ingest = await repeat(
                lambda: self._connection.unary(self._connection.ingests.GetIngest, request), self._backoff()
            )
        except NotFoundError:
            ingest = Ingest(done=True)
        if ingest.done:
            await asyncio.to_thread(memory.forget)
            return None
        return ingest

    async def _create(self, memory: PushMemory) -> Ingest:
        before = await asyncio.to_thread(memory.load)
        request_id = before.request_id if before is not None else str(uuid.uuid4())
        try:
            ingest = await self._create_as(memory, request_id)
        except InvalidRequestError as error:
            if error.reason != "REQUEST_ID_REUSED":
                raise
            # An earlier run declared more or less than this one, e.g. no digest.
            return await self._create_as(memory, str(uuid.uuid4()))
        if ingest.done and before is not None:
            # The former run's, ended since: this is a new push.
            ingest = await self._create_as(memory, str(uuid.uuid4()))
        return ingest

    async def _create_as(self, memory: PushMemory, request_id: str) -> Ingest:
        # Remembered before it is sent: if the answer is lost, the same id brings the same ingest.
        await asyncio.to_thread(memory.save, Remembered(request_id, ""))
        try:
            ingest = await self._create_with(request_id)
        except InvalidRequestError:
            await asyncio.to_thread(memory.forget)
            raise
        await asyncio.to_thread(memory.save, Remembered(request_id, ingest.name))
        return ingest

    async def _create_with(self, request_id: str) -> Ingest:
        specs = [
            FileSpec(
                file_name=name,
                role=self._files[name].role,
                size_bytes=source.size_bytes,
                sha256=await self._digest(name, source) if self._options.declare_digest else "",
            )
            for name, source in self._sources.items()
        ]
        request = CreateIngestRequest(
            model=self._options.name,
            files=specs,
            options=self._options.options if self._options.options.ByteSize() else None,
            targets=self._options.targets,
            store_only=self._options.store_only,
            request_id=request_id,
        )
        return await repeat(
            lambda: self._connection.unary(self._connection.ingests.CreateIngest, request), self._backoff()
        )

    async def _digest(self, name: str, source: FileSource) -> str:
        await source.hash_to(
            source.size_bytes, lambda hashed_bytes: self._tell(Hashing(name, hashed_bytes, source.size_bytes))
        )
        return await source.digest()

    async def _send_and_follow(self, ingest: Ingest) -> Ingest:
        sending = asyncio.create_task(self._send(ingest))
        following = asyncio.create_task(self._follow(ingest))
        try:
            running = {sending, following}
            while not sending.done():
                ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                failure = following.exception() if following in ended else None
                if failure is not None and not isinstance(failure, IngestError):
                    # The caller's callback raised. A lost watch alone stops no upload.
                    raise failure
            try:
                await sending
                self._is_sending = False
            except IngestError as error:
                await asyncio.wait({following}, timeout=_LAST_WORDS_SECONDS)
                if error.ingest is None and following.done() and following.exception() is None:
                    # How it ended, not how it began.
                    error.ingest = following.result()
                raise
            if self._options.detach:
                request = GetIngestRequest(name=ingest.name)
                return await self._connection.unary(self._connection.ingests.GetIngest, request)
            try:
                return await following
            except IngestError:
                return await self._follow(ingest)
        finally:
            sending.cancel()
            following.cancel()
            await asyncio.gather(sending, following, return_exceptions=True)

    async def _send(self, ingest: Ingest) -> None:
        for file in ingest.files:
            if file.state in COMPLETE:
                continue
            backoff = self._backoff()
            strategy = UploadStrategy(
                self._connection,
                file.name,
                self._sources[file.file_name],
                backoff,
                chunk_bytes=chunk_bytes_for(self._capabilities),
                stall_seconds=self._limits.stall_seconds,
                resumable=self._capabilities.resumable,
            )
            # What an earlier run, or an earlier call, brought there need not be sent again.
            look_first = file.state == File.STATE_UPLOADING
            on_wait = partial(self._waits, file.file_name)
            while not await self._is_kept(
                strategy, await run(strategy, backoff, look_first=look_first, on_wait=on_wait)
            ):
                error = StalledError(f"{file.file_name} takes bytes again: its server went away at the end")
                await asyncio.sleep(backoff.after(error))
                look_first = True

    def _waits(self, file_name: str, error: IngestError, delay_seconds: float) -> None:
        self._tell(Waiting(file_name, error, delay_seconds))

    async def _is_kept(self, strategy: UploadStrategy, file: File) -> bool:
        """Whether a file that was sent is there. One whose server dies while it verifies it, is not."""
        while file.state != File.STATE_STORED:
            if file.state in COMPLETE and self._options.detach:
                break
            await asyncio.sleep(_SETTLE_SECONDS)
            found = await repeat(strategy.recover, self._backoff())
            if found is None:
                return False
            file = found
        return True

    async def _follow(self, ingest: Ingest) -> Ingest:
        return await follow(
            self._connection,
            ingest,
            ingest.last_sequence,
            self._heard,
            patience_seconds=self._limits.patience_seconds,
            stall_seconds=self._limits.stall_seconds,
        )

    def _heard(self, update: Update) -> None:
        # While bytes are sent, the upload itself tells of an outage, and with more to say.
        if not (isinstance(update, Waiting) and self._is_sending):
            self._tell(update)

    def _backoff(self) -> Backoff:
        return Backoff(self._limits.patience_seconds)

    def _tell(self, update: Update) -> None:
        if self._on_update is not None:
            self._on_update(update)


async def capabilities(connection: Connection) -> Capabilities:
    """The server's limits; defaults for one that does not tell them. The first contact of a push."""
    try:
        return await connection.unary(connection.ingests.GetCapabilities, GetCapabilitiesRequest())
    except NotServedError:
        return Capabilities()
