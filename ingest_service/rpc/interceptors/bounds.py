"""Bounds what requests cost, before protobuf makes objects of them.

Requests are taken as raw bytes: their size and what they hold are checked first. Every handler is turned into
one that reads a stream, because grpc.aio reads the message of any other before our code runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import grpc

from ingest_service.rpc.call_gates import ReadingGate, WorkGate
from ingest_service.rpc.interceptors.wrapping import WrappingInterceptor
from ingest_service.rpc.undecodable import UndecodableMessage, checked, safe_deserializer
from ingest_service.rpc.wire_limits import MAX_REQUEST_BYTES, REQUEST_TYPES, max_request_bytes
from ingest_service.rpc.wire_scan import check_counts
from ingest_service.vocabulary.errors import ArgumentInvalid

if TYPE_CHECKING:
    from ingest_service.rpc.interceptors.wrapping import Handler

_HEALTH = "/grpc.health.v1.Health/"


class BoundedRequests(WrappingInterceptor):
    """Of one server."""

    def __init__(self) -> None:
        # 16 messages of 4 MiB, twice (gRPC's buffers and ours), are 128 MiB.
        self._requests = ReadingGate("requests", slots=16, max_waiting=512, patience_seconds=2.0)
        self._starts = ReadingGate("uploads", slots=16, max_waiting=512, patience_seconds=2.0)
        # Of its own: whoever floods the service cannot make it look dead.
        self._health = ReadingGate("health", slots=16, max_waiting=512, patience_seconds=2.0)
        self._work = WorkGate("calls", slots=256, max_waiting=512, patience_seconds=10.0)
        #: A decoded CreateIngest of 4 MiB is held three to five times until it is in the database.
        self._large = WorkGate("large requests", slots=4, max_waiting=32, patience_seconds=10.0)

    def wrap(self, handler: Handler, method: str) -> Handler:
        if handler.request_streaming:
            return self._stream(handler, method)
        return self._request(handler, method)

    def _request(self, handler: Handler, method: str) -> Handler:
        decode: Any = safe_deserializer(bounded_decoder(handler.request_deserializer, method))
        is_health = method.startswith(_HEALTH)
        gate = self._health if is_health else self._requests
        inner: Any = handler.unary_stream or handler.unary_unary

        async def read(messages: AsyncGenerator[bytes, None], held: contextlib.AsyncExitStack) -> Any:
            async with contextlib.aclosing(messages):
                try:
                    data = await gate.read(messages)
                except StopAsyncIteration:
                    raise UndecodableMessage from None
            if len(data) > MAX_REQUEST_BYTES:
                await held.enter_async_context(self._large.work())
            message = decode(data)
            # A refusal's traceback would keep the bytes until the garbage collector comes by.
            del data
            return checked(message)

        async def answer(messages: AsyncGenerator[bytes, None], context: Any) -> Any:
            async with contextlib.AsyncExitStack() as held:
                if not is_health:
                    await held.enter_async_context(self._work.work())
                return await inner(await read(messages, held), context)

        async def stream(messages: AsyncGenerator[bytes, None], context: Any) -> AsyncIterator[Any]:
            async with contextlib.AsyncExitStack() as held:
                request = await read(messages, held)
            async with contextlib.aclosing(inner(request, context)) as responses:
                async for response in responses:
                    yield response

        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, None, handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(answer, None, handler.response_serializer)

    def _stream(self, handler: Handler, method: str) -> Handler:
        decode = bounded_decoder(handler.request_deserializer, method)
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                handler.stream_stream, decode, handler.response_serializer
            )
        inner: Any = handler.stream_unary

        async def answer(messages: AsyncGenerator[Any, None], context: Any) -> Any:
            async with contextlib.aclosing(messages), contextlib.aclosing(self._started(messages)) as bounded:
                return await inner(bounded, context)

        return grpc.stream_unary_rpc_method_handler(answer, decode, handler.response_serializer)

    async def _started(self, messages: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        """The messages of an upload; its first one is a request like any other."""
        try:
            first = await self._starts.read(messages)
        except StopAsyncIteration:
            return
        if hasattr(first, "ByteSize") and first.ByteSize() > MAX_REQUEST_BYTES:
            async with self._large.work():
                yield first
        else:
            yield first
        del first
        async for message in messages:
            yield message


def bounded_decoder(decode: Callable[[bytes], Any] | None, method: str) -> Callable[[bytes], Any]:
    """`decode`, for messages that are not too large and hold not too much. Raises ArgumentInvalid,
    OptionUnsupported, UndecodableMessage, and what `decode` raises."""
    most_bytes = max_request_bytes(method)
    # None: a service that is not ours (health, reflection), or Upload, whose reader counts by itself.
    message_type = REQUEST_TYPES.get(method)

    def bounded(data: bytes) -> Any:
        if len(data) > most_bytes:
            raise ArgumentInvalid(
                f"A request of this method has at most {most_bytes} bytes.", field="request"
            )
        if message_type is not None:
            check_counts(data, message_type)
        return data if decode is None else decode(data)

    return bounded
