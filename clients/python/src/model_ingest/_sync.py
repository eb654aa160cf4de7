"""The synchronous face: the asynchronous client on a loop in one background thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from model_ingest._client import AnyPath, AsyncClient
from model_ingest._connection import DEFAULT_SERVER
from model_ingest._limits import Limits
from model_ingest._loop_thread import LoopThread
from model_ingest._updates import OnUpdate
from model_ingest.v1.catalog_service_pb2 import DeleteModelResponse, VerifyModelResponse
from model_ingest.v1.ingest_service_pb2 import Capabilities, FileSpec, WatchIngestResponse
from model_ingest.v1.resources_pb2 import CreateOptions, File, Ingest, Model, Target

_T = TypeVar("_T")


class Client:
    """`AsyncClient` for code without an event loop: the same methods, blocking.

        with Client("127.0.0.1:50051") as client:
            ingest = client.push("model.gguf", name="llama3:8b")

    May be used from several threads. Callbacks run in the background thread and must not call
    the client. Where an event loop runs already, as in a notebook, `with` raises RuntimeError: use
    `AsyncClient` on that loop. Not to be carried over a fork.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """As for `AsyncClient`."""
        self._async = AsyncClient(server, limits=limits, credentials=credentials)
        self._thread: LoopThread | None = None

    def __enter__(self) -> Self:
        _check_no_loop_runs()
        thread = LoopThread.acquire()
        try:
            thread.run(self._async.__aenter__())
        except BaseException:
            thread.release()
            raise
        self._thread = thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the channel; the last client stops the thread. May be called twice."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                thread.run(self._async.close())
            finally:
                thread.release()

    def push(
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
        """See AsyncClient.push; `on_update` is called in the background thread."""
        return self._run(
            self._async.push(
                paths,
                name=name,
                roles=roles,
                options=options,
                targets=targets,
                store_only=store_only,
                declare_digest=declare_digest,
                digest_cache=digest_cache,
                detach=detach,
                on_update=on_update,
            )
        )

    def create_ingest(
        self,
        model: str,
        files: Sequence[FileSpec],
        *,
        targets: Sequence[str] = (),
        store_only: bool = False,
        options: CreateOptions | None = None,
        request_id: str | None = None,
    ) -> Ingest:
        """See AsyncClient.create_ingest."""
        return self._run(
            self._async.create_ingest(
                model, files, targets=targets, store_only=store_only, options=options, request_id=request_id
            )
        )

    def upload(self, file: str, path: AnyPath) -> File:
        """See AsyncClient.upload."""
        return self._run(self._async.upload(file, path))

    def watch(self, ingest: str, *, after_sequence: int = 0) -> Iterator[WatchIngestResponse]:
        """See AsyncClient.watch."""
        return self._iterate(self._async.watch(ingest, after_sequence=after_sequence))

    def wait(
        self, ingest: str, *, after_sequence: int | None = None, on_update: OnUpdate | None = None
    ) -> Ingest:
        """See AsyncClient.wait."""
        return self._run(self._async.wait(ingest, after_sequence=after_sequence, on_update=on_update))

    def get_ingest(self, ingest: str) -> Ingest:
        """See AsyncClient.get_ingest."""
        return self._run(self._async.get_ingest(ingest))

    def list_ingests(
        self, *, model: str = "", states: Sequence[Ingest.State.ValueType] = (), limit: int | None = None
    ) -> list[Ingest]:
        """See AsyncClient.list_ingests."""
        return self._run(self._async.list_ingests(model=model, states=states, limit=limit))

    def cancel(self, ingest: str) -> Ingest:
        """See AsyncClient.cancel."""
        return self._run(self._async.cancel(ingest))

    def retry(self, ingest: str, *, targets: Sequence[str] = ()) -> Ingest:
        """See AsyncClient.retry."""
        return self._run(self._async.retry(ingest, targets=targets))

    def capabilities(self) -> Capabilities:
        """See AsyncClient.capabilities."""
        return self._run(self._async.capabilities())

    def list_models(self, *, name_prefix: str = "", limit: int | None = None) -> list[Model]:
        """See AsyncClient.list_models."""
        return self._run(self._async.list_models(name_prefix=name_prefix, limit=limit))

    def get_model(self, model: str) -> Model:
        """See AsyncClient.get_model."""
        return self._run(self._async.get_model(model))

    def delete_model(
        self, model: str, *, targets: Sequence[str] = (), all_targets: bool = False
    ) -> DeleteModelResponse:
        """See AsyncClient.delete_model."""
        return self._run(self._async.delete_model(model, targets=targets, all_targets=all_targets))

    def deploy(self, model: str, *, targets: Sequence[str] = (), request_id: str | None = None) -> Ingest:
        """See AsyncClient.deploy."""
        return self._run(self._async.deploy(model, targets=targets, request_id=request_id))

    def import_file(
        self,
        file_name: str,
        *,
        name: str,
        targets: Sequence[str] = (),
        store_only: bool = False,
        request_id: str | None = None,
    ) -> Ingest:
        """See AsyncClient.import_file."""
        return self._run(
            self._async.import_file(
                file_name, name=name, targets=targets, store_only=store_only, request_id=request_id
            )
        )

    def list_targets(self) -> list[Target]:
        """See AsyncClient.list_targets."""
        return self._run(self._async.list_targets())

    def verify(self, model: str) -> Iterator[VerifyModelResponse]:
        """See AsyncClient.verify."""
        return self._iterate(self._async.verify(model))

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        if self._thread is None:
            coroutine.close()
            raise RuntimeError("use the client in `with`, before it is closed")
        return self._thread.run(coroutine)

    def _iterate(self, responses: AsyncIterator[_T]) -> Iterator[_T]:
        end = object()

        async def following() -> _T | object:
            return await anext(responses, end)

        async def finish() -> None:
            close = getattr(responses, "aclose", None)
            if close is not None:
                await close()

        try:
            while (response := self._run(following())) is not end:
                yield response  # type: ignore[misc]
        finally:
            self._run(finish())


def _check_no_loop_runs() -> None:
    # Each call would block that loop, and grpc.aio wants one loop a process.
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "an event loop runs already in this thread (as in a notebook), and Client would block it:"
        " use AsyncClient (async with AsyncClient(...) as client: await client.push(...))"
    )
