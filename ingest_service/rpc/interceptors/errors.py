"""Turns what handlers raise into statuses; first in the chain.

Without it grpc.aio tells the client the text of any exception (peers.md P6). Streams are wrapped as
generators, which is how all handlers here are written (P17).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from grpc import aio

from ingest_service.rpc.interceptors.wrapping import WrappingInterceptor
from ingest_service.rpc.status import CODES, to_status
from ingest_service.rpc.undecodable import UndecodableMessage, checked, checked_stream, safe_deserializer
from ingest_service.telemetry.log_limit import PEER, peer_address
from ingest_service.vocabulary.errors import DatabaseDown, IngestError, TooBusy

_log = logging.getLogger(__name__)
_STATUS_DETAILS = "grpc-status-details-bin"

if TYPE_CHECKING:
    from ingest_service.rpc.interceptors.wrapping import Handler


class ErrorInterceptor(WrappingInterceptor):
    """Wraps every handler of the server."""

    def wrap(self, handler: Handler, method: str) -> Handler:
        return _wrap(handler, method)


def _wrap(handler: Handler, method: str) -> Handler:
    options: Any = {
        "request_deserializer": safe_deserializer(handler.request_deserializer),
        "response_serializer": handler.response_serializer,
    }
    check: Any = checked_stream if handler.request_streaming else checked
    inner: Any = handler.stream_stream or handler.stream_unary or handler.unary_stream or handler.unary_unary

    async def answer(request: Any, context: Any) -> Any:
        PEER.set(peer_address(context.peer()))
        try:
            return await inner(check(request), context)
        except Exception as error:  # noqa: BLE001 (ends the call)
            ending = _ending(error, method)
        try:
            await _end(context, ending)
        finally:
            del request, context, ending

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        PEER.set(peer_address(context.peer()))
        try:
            async for response in inner(check(request), context):
                yield response
            return
        except Exception as error:  # noqa: BLE001 (ends the call)
            ending = _ending(error, method)
        try:
            await _end(context, ending)
        finally:
            del request, context, ending

    if handler.response_streaming:
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, **options)
        return grpc.unary_stream_rpc_method_handler(stream, **options)
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler(answer, **options)
    return grpc.unary_unary_rpc_method_handler(answer, **options)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """How a call ends."""

    code: grpc.StatusCode
    message: str
    trailing_metadata: tuple[tuple[str, bytes], ...] = ()


def _ending(error: Exception, method: str) -> _Refusal | aio.AbortError:
    """What a handler raised, without the frames that it went through."""
    if isinstance(error, aio.AbortError):
        # The handler has ended the call itself: a second end would be an error of its own.
        return error.with_traceback(None)
    return _refusal(error, method)


async def _end(context: Any, ending: _Refusal | aio.AbortError) -> NoReturn:
    """Raises AbortError. Not within an `except`, whose error would go with it.

    gRPC's call keeps the error, and the error the frames that it went through. What they hold of the call is
    let go here and by the caller: else each refused call stays, with its message, until the garbage collector
    comes by.
    """
    try:
        if isinstance(ending, aio.AbortError):
            raise ending
        await context.abort(ending.code, ending.message, trailing_metadata=ending.trailing_metadata)
    finally:
        del context, ending
    raise AssertionError("abort raises")


def _refusal(error: Exception, method: str) -> _Refusal:
    if isinstance(error, IngestError):
        status = to_status(error)
        # The database tells of its own outage, once, and the gates count whom they refuse: not every call.
        _log.log(
            logging.DEBUG if isinstance(error, DatabaseDown | TooBusy) else logging.INFO,
            "call refused",
            extra={"method": method, "reason": error.reason, "detail": error.message, "field": error.field},
        )
        details = ((_STATUS_DETAILS, status.SerializeToString()),)
        return _Refusal(CODES[error.reason], error.message, details)
    if isinstance(error, UndecodableMessage):
        message = "The message is no valid protobuf of this method's request type."
        return _Refusal(grpc.StatusCode.INVALID_ARGUMENT, message)
    fault_id = secrets.token_hex(8)
    _log.error("unforeseen fault", exc_info=error, extra={"method": method, "fault": fault_id})
    message = f"An unforeseen fault of the service; its log has it under {fault_id}."
    return _Refusal(grpc.StatusCode.INTERNAL, message)
