"""Gives `Upload` its own reader of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from model_ingest.v1.ingest_service_pb2 import DESCRIPTOR

from ingest_service.rpc.interceptors.wrapping import WrappingInterceptor
from ingest_service.rpc.upload_message import read_upload_message

if TYPE_CHECKING:
    from ingest_service.rpc.interceptors.wrapping import Handler

_METHOD = f"/{DESCRIPTOR.services_by_name['IngestService'].full_name}/Upload"


class UploadMessages(WrappingInterceptor):
    """The generated code ties every method to protobuf's own reader, which copies a chunk twice."""

    def wrap(self, handler: Handler, method: str) -> Handler:
        if method != _METHOD:
            return handler
        inner: Any = handler.stream_unary
        return grpc.stream_unary_rpc_method_handler(inner, read_upload_message, handler.response_serializer)
