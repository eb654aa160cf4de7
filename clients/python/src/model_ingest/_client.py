"""The asynchronous client."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from model_ingest._backoff import Backoff
from model_ingest._catalog import CatalogCalls
from model_ingest._connection import DEFAULT_SERVER, Connection
from model_ingest._follow import follow
from model_ingest._limits import Limits
from model_ingest._names import ingest_name
from model_ingest._push import Push, PushOptions, capabilities
from model_ingest._retry import run
from model_ingest._source import FileSource
from model_ingest._updates import OnUpdate
from model_ingest._upload import UploadStrategy, chunk_bytes_for
from model_ingest._watch import watch
from model_ingest.v1.ingest_service_pb2 import (
    CancelIngestRequest,
    Capabilities,
    CreateIngestRequest,
    FileSpec,
    GetCapabilitiesRequest,
    GetIngestRequest,
    ListIngestsRequest,
    RetryIngestRequest,
    WatchIngestResponse,
)
from model_ingest.v1.resources_pb2 import CreateOptions, File, Ingest

AnyPath = str | PathLike[str]


class AsyncClient(CatalogCalls):
    """A client of one model ingest service.

        async with AsyncClient("127.0.0.1:50051") as client:
            ingest = await client.push("model.gguf", name="llama3:8b")

    Ingests may be named `ingests/{id}` or `{id}`, models `models/{name}` or `{name}`. Resources
    come back as the messages of `model_ingest.v1`; errors are those of `IngestError`'s tree. No
    call waits for ever: see `Limits`.

    Belongs to one event loop. grpc.aio wants one event loop a process; use several clients on it
    rather than several loops.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """`server` is HOST:PORT (ValueError for a URL); with `credentials` the channel is TLS."""
        self._server = server
        self._limits = limits
        self._credentials = credentials
        self._open: Connection | None = None

    async def __aenter__(self) -> Self:
        """Makes the channel; connects with the first call."""
        self._open = Connection(self._server, self._limits, self._credentials)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancels what still runs and closes the channel. May be called twice."""
        connection, self._open = self._open, None
        if connection is not None:
            await connection.close()

    @property
    def _connection(self) -> Connection:
        if self._open is None:
            raise RuntimeError("use the client in `async with`, before it is closed")
        return self._open

    async def push(
        self,
        paths: AnyPath | Sequence[AnyPath],
        *,
        name: str,
        roles: Sequence[tuple[str, AnyPath]] = (),
        options: CreateOptions | None = None,
        targets: Sequence[str] = (),
        store_only: bool = False,
        declare_digest: bool = False,
        digest_cache: bool = True,
        detach: bool = False,
        on_update: OnUpdate | None = None,
    ) -> Ingest:
        """Brings model files in and follows them to the end: READY, or STORED where there is no target.

        A directory stands for the set of safetensors, or the GGUF shards, in it. `roles` are further
        files, e.g. `("projector", "mmproj.gguf")`; `options` what Ollama is to make of them
        (`read_modelfile` reads a Modelfile into them).

        `on_update` is called on the event loop with `Hashing`, `Accepted` and `Moved`; it must not
        block. A file is read once, its digest goes with the last bytes and is remembered; the next push
        of the same unchanged file declares it first, and bytes which are stored already are not sent nor
        read. `declare_digest` reads a file whose digest is not remembered once before sending, for the
        same end; `digest_cache=False` neither uses nor keeps what is remembered. `detach` returns when
        the bytes are there.

        Raises RefusedError, TargetError (stored, but not running everywhere), ConnectionLostError,
        LocalFileError; their `ingest` is the last state known.
        """
        several = [paths] if isinstance(paths, (str, PathLike)) else list(paths)
        push = PushOptions(
            paths=[Path(path) for path in several],
            name=name,
            roles=[(role, Path(path)) for role, path in roles],
            options=options or CreateOptions(),
            targets=targets,
            store_only=store_only,
            declare_digest=declare_digest,
            digest_cache=digest_cache,
            detach=detach,
        )
        return await Push(self._connection, self._limits, push, on_update).run()

    async def create_ingest(
        self,
        model: str,
        files: Sequence[FileSpec],
        *,
        targets: Sequence[str] = (),
        store_only: bool = False,
        options: CreateOptions | None = None,
        request_id: str | None = None,
    ) -> Ingest:
        """Declares an ingest; its files are to be uploaded. Without a `request_id` a new one is made."""
        request = CreateIngestRequest(
            model=model,
            files=files,
            options=options,
            targets=targets,
            store_only=store_only,
            request_id=request_id or str(uuid.uuid4()),
        )
        return await self._connection.unary(self._connection.ingests.CreateIngest, request)

    async def upload(self, file: str, path: AnyPath) -> File:
        """Sends one file's bytes to `ingests/{id}/files/{file_name}`, resuming where the server can.

        The answer may still be VERIFYING: watch the ingest then. Raises as `push` does.
        """
        known = await capabilities(self._connection)
        backoff = Backoff(self._limits.patience_seconds)
        async with FileSource(Path(path)) as source:
            strategy = UploadStrategy(
                self._connection,
                file,
                source,
                backoff,
                chunk_bytes=chunk_bytes_for(known),
                stall_seconds=self._limits.stall_seconds,
                resumable=known.resumable,
            )
            return await run(strategy, backoff)

    def watch(self, ingest: str, *, after_sequence: int = 0) -> AsyncIterator[WatchIngestResponse]:
        """Every event after `after_sequence`, progress and heartbeats between them, until the ingest is done.

        Broken streams are taken up again without a gap; raises ConnectionLostError when that
        fails for `patience_seconds`, NotFoundError, InvalidRequestError (SEQUENCE_EXPIRED).
        """
        return watch(
            self._connection,
            ingest_name(ingest),
            after_sequence,
            Backoff(self._limits.patience_seconds),
            stall_seconds=self._limits.stall_seconds,
        )

    async def wait(
        self, ingest: str, *, after_sequence: int | None = None, on_update: OnUpdate | None = None
    ) -> Ingest:
        """The ingest once it is done, whatever its outcome; `error_of` tells whether it ended well.

        `on_update` gets a `Moved` for every event after `after_sequence` (None: from now on).
        """
        start = await self.get_ingest(ingest)
        return await follow(
            self._connection,
            start,
            start.last_sequence if after_sequence is None else after_sequence,
            on_update,
            patience_seconds=self._limits.patience_seconds,
            stall_seconds=self._limits.stall_seconds,
        )

    async def get_ingest(self, ingest: str) -> Ingest:
        """The truth now."""
        request = GetIngestRequest(name=ingest_name(ingest))
        return await self._connection.unary(self._connection.ingests.GetIngest, request)

    async def list_ingests(
        self, *, model: str = "", states: Sequence[Ingest.State.ValueType] = (), limit: int | None = None
    ) -> list[Ingest]:
        """Ingests, newest first; all pages, or the first `limit`."""
        found: list[Ingest] = []
        request = ListIngestsRequest(model=model, states=states, page_size=min(limit or 500, 500))
        while True:
            page = await self._connection.unary(self._connection.ingests.ListIngests, request)
            found.extend(page.ingests)
            if not page.next_page_token or (limit is not None and len(found) >= limit):
                return found[:limit]
            request.page_token = page.next_page_token

    async def cancel(self, ingest: str) -> Ingest:
        """Stops an ingest; a done one is answered as it is."""
        request = CancelIngestRequest(name=ingest_name(ingest))
        return await self._connection.unary(self._connection.ingests.CancelIngest, request)

    async def retry(self, ingest: str, *, targets: Sequence[str] = ()) -> Ingest:
        """Tries again what failed on targets (all that failed, or only these)."""
        request = RetryIngestRequest(name=ingest_name(ingest), targets=targets)
        return await self._connection.unary(self._connection.ingests.RetryIngest, request)

    async def capabilities(self) -> Capabilities:
        """Limits, formats and versions of the service."""
        return await self._connection.unary(
            self._connection.ingests.GetCapabilities, GetCapabilitiesRequest()
        )
