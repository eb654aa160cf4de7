"""Gives `Upload` its own reader of messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio
from model_ingest.v1.ingest_service_pb2 import DESCRIPTOR

from ingest_service.rpc.upload_message import read_upload_message

if TYPE_CHECKING:
    _Handler = grpc.RpcMethodHandler[Any, Any]

_METHOD = f"/{DESCRIPTOR.services_by_name['IngestService'].full_name}/Upload"


class UploadMessages(aio.ServerInterceptor):
    """The generated code ties every method to protobuf's own reader, which copies a chunk twice."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method != _METHOD:
            return handler
        inner: Any = handler.stream_unary
        return grpc.stream_unary_rpc_method_handler(inner, read_upload_message, handler.response_serializer)
