"""Lets small calls through beside uploads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc

from ingest_service.rpc.interceptors.wrapping import WrappingInterceptor
from ingest_service.rpc.read_turns import ReadTurns

if TYPE_CHECKING:
    from ingest_service.rpc.interceptors.wrapping import Handler


class SmallCallsFirst(WrappingInterceptor):
    """Unary calls are the small ones; what reads a stream takes turns. Innermost: it sees whole messages."""

    def __init__(self, turns: ReadTurns) -> None:
        self._turns = turns

    def wrap(self, handler: Handler, method: str) -> Handler:
        codec = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._small(handler.unary_unary), *codec)
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(self._reading(handler.stream_unary), *codec)
        return handler

    def _small(self, inner: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def answer(request: Any, context: Any) -> Any:
            with self._turns.small_call():
                return await inner(request, context)

        return answer

    def _reading(self, inner: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def answer(messages: AsyncIterator[Any], context: Any) -> Any:
            return await inner(self._turns.in_turn(messages), context)

        return answer
