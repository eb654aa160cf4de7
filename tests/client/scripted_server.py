"""A real grpc.aio server whose answers a test writes: for faults that no real service makes on command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from model_ingest.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    ingest_service_pb2,
    ingest_service_pb2_grpc,
)
from model_ingest.v1.resources_pb2 import Event, File, Ingest

NAME = "ingests/i1"
FILE = f"{NAME}/files/model.gguf"
Handler = Callable[[Any, Any], Any]


@dataclass
class Script:
    """One handler for each method; without one it answers UNIMPLEMENTED, as the generated servicer does."""

    handlers: dict[str, Handler] = field(default_factory=dict)
    requests: list[tuple[str, Any]] = field(default_factory=list)
    address: str = ""

    def on(self, method: str, handler: Handler) -> None:
        self.handlers[method] = handler

    def answers(self, method: str, *responses: Any) -> None:
        """One after the other; the last one again and again.  A callable among them is a handler."""
        queue = list(responses)

        async def answer(request: Any, context: Any) -> Any:
            response = queue.pop(0) if len(queue) > 1 else queue[0]
            return await response(request, context) if callable(response) else response

        self.on(method, answer)

    def streams(self, *responses: ingest_service_pb2.WatchIngestResponse) -> None:
        """WatchIngest sends these and ends."""

        async def watch(request: Any, context: Any) -> AsyncIterator[Any]:
            for response in responses:
                if not response.HasField("event") or response.event.sequence > request.after_sequence:
                    yield response

        self.on("WatchIngest", watch)

    def seen(self, method: str) -> list[Any]:
        return [request for name, request in self.requests if name == method]


def refusal(
    code: grpc.StatusCode,
    reason: str = "",
    message: str = "refused",
    *,
    metadata: Mapping[str, str] | None = None,
    violations: Sequence[tuple[str, str]] = (),
    retry_after_seconds: int | None = None,
) -> Any:
    """The grpc.Status that the service would end the call with."""
    details: list[Any] = []
    if reason:
        details.append(
            error_details_pb2.ErrorInfo(domain="model-ingest", reason=reason, metadata=dict(metadata or {}))
        )
    if violations:
        bad = error_details_pb2.BadRequest()
        for name, description in violations:
            bad.field_violations.add(field=name, description=description)
        details.append(bad)
    if retry_after_seconds is not None:
        info = error_details_pb2.RetryInfo()
        info.retry_delay.seconds = retry_after_seconds
        details.append(info)
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return rpc_status.to_status(status)


def refuses(code: grpc.StatusCode, reason: str = "", message: str = "refused", **more: Any) -> Handler:
    async def refuse(request: Any, context: Any) -> None:
        await context.abort_with_status(refusal(code, reason, message, **more))

    return refuse


async def takes_everything(messages: AsyncIterator[Any], context: Any) -> File:
    """An Upload handler that reads to the end."""
    size = 0
    sha256 = ""
    async for message in messages:
        size += len(message.chunk.data)
        sha256 = message.finish.sha256 or sha256
    return File(
        name=FILE, file_name="model.gguf", state=File.STATE_STORED, committed_size=size, sha256=sha256
    )


def ingest(state: Ingest.State.ValueType = Ingest.STATE_UPLOADING, **values: Any) -> Ingest:
    file_state = File.STATE_PENDING if state == Ingest.STATE_UPLOADING else File.STATE_STORED
    file = File(name=FILE, file_name="model.gguf", role=File.ROLE_MODEL, state=file_state, size_bytes=10)
    values.setdefault("files", [file])
    return Ingest(name=NAME, model="m:latest", state=state, **values)


def event(sequence: int, **kind: Any) -> ingest_service_pb2.WatchIngestResponse:
    return ingest_service_pb2.WatchIngestResponse(event=Event(sequence=sequence, **kind))


def _unary(script: Script, method: str) -> Callable[[Any, Any], Awaitable[Any]]:
    async def call(request: Any, context: Any) -> Any:
        script.requests.append((method, request))
        if method not in script.handlers:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!")
        return await script.handlers[method](request, context)

    return call


def _stream(script: Script, method: str) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        script.requests.append((method, request))
        if method not in script.handlers:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!")
        async for response in script.handlers[method](request, context):
            yield response

    return call


@asynccontextmanager
async def serve(script: Script, port: int = 0) -> AsyncIterator[Script]:
    """Runs it on a free port of the loopback (or on `port`, for one that comes back)."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    # Any: the stubs call the servicers abstract; their methods are set here.
    ingests: Any = ingest_service_pb2_grpc.IngestServiceServicer()  # type: ignore[abstract]
    catalog: Any = catalog_service_pb2_grpc.CatalogServiceServicer()  # type: ignore[abstract]
    for servicer, service in (
        (ingests, ingest_service_pb2.DESCRIPTOR.services_by_name["IngestService"]),
        (catalog, catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"]),
    ):
        for method in service.methods:
            make = _stream if method.server_streaming else _unary
            setattr(servicer, method.name, make(script, method.name))
    ingest_service_pb2_grpc.add_IngestServiceServicer_to_server(ingests, server)
    catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, server)
    script.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    await server.start()
    try:
        yield script
    finally:
        await server.stop(None)
        await _calls_ended()


async def _calls_ended() -> None:
    """gRPC's own tasks for cancelled calls outlive `stop` by some turns of the loop. One that is left when
    the loop closes has crashed the process in a later test."""
    deadline = asyncio.get_running_loop().time() + 2
    while any(task.get_name() == "rpc_task" for task in asyncio.all_tasks()):
        if asyncio.get_running_loop().time() > deadline:
            return  # another server's; the leak check tells of what is really left
        await asyncio.sleep(0.001)
