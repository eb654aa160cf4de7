"""What an interceptor does that puts something around handlers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]


class WrappingInterceptor(aio.ServerInterceptor, ABC):
    """`wrap` is asked for each call whose method there is."""

    @abstractmethod
    def wrap(self, handler: Handler, method: str) -> Handler:
        """The handler to use instead, or the same."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        return None if handler is None else self.wrap(handler, str(handler_call_details.method))
