"""A handler may end its call itself; that is no fault of the service."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ingest_service.rpc.health_servicer import HealthService
from ingest_service.rpc.interceptors import ErrorInterceptor


async def test_unknown_service_of_health_is_not_found_and_no_error_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = aio.server(interceptors=[ErrorInterceptor()])
    health_pb2_grpc.add_HealthServicer_to_server(HealthService(["known"]), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            with caplog.at_level(logging.ERROR), pytest.raises(aio.AioRpcError) as raised:
                await stub.Check(health_pb2.HealthCheckRequest(service="unknown"), timeout=30)
    finally:
        await server.stop(None)

    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert raised.value.details() == "There is no such service."
    assert not caplog.records, caplog.text


async def test_a_stream_may_end_itself_after_its_answers(caplog: pytest.LogCaptureFixture) -> None:
    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield request
        await context.abort(grpc.StatusCode.NOT_FOUND, "There is no more.")

    handlers: dict[str, Any] = {"Watch": grpc.unary_stream_rpc_method_handler(stream)}
    server = aio.server(interceptors=[ErrorInterceptor()])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel: Any
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_stream("/test.Service/Watch")(b"one", timeout=30)
            with caplog.at_level(logging.ERROR):
                assert await call.read() == b"one"
                with pytest.raises(aio.AioRpcError) as raised:
                    await call.read()
    finally:
        await server.stop(None)

    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert raised.value.details() == "There is no more."
    assert not caplog.records, caplog.text
