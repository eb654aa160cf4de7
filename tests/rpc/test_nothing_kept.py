"""A call that is over leaves nothing for the garbage collector: it would keep the call's last message."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from ingest_service.rpc.interceptors import ErrorInterceptor
from tests.support import bombs
from tests.support.service import RunningService

_INGESTS = "/model_ingest.v1.IngestService/"
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_OF_A_CALL = {"RPCState", "_ServicerContext", "_MessageReceiver"}


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    # What the tests before have left alive is not looked through again and again.
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def _kept() -> Counter[str]:
    return Counter(name for one in gc.get_objects() if (name := type(one).__name__) in _OF_A_CALL)


async def _drained(call: Any) -> None:
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError:
        pass


async def _messages(*messages: bytes) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


async def test_a_call_that_is_over_is_let_go_at_once(uncollected: None, service: RunningService) -> None:
    bomb = bombs.filled(b"\x12\x00", 128 * 1024)
    channel: Any
    async with service.channel() as channel:
        calls = {
            "answered": lambda: channel.unary_unary(_INGESTS + "ListIngests")(b""),
            "refused": lambda: channel.unary_unary(_INGESTS + "GetIngest")(b""),
            "a bomb": lambda: channel.unary_unary(_INGESTS + "CreateIngest")(bomb),
            "refused stream": lambda: channel.unary_stream(_INGESTS + "WatchIngest")(b""),
            "ended by its handler": lambda: channel.unary_unary(_HEALTH_CHECK)(bombs.field(1, b"unknown")),
            "refused upload": lambda: channel.stream_unary(_INGESTS + "Upload")(_messages(b"", b"")),
        }
        for begin in calls.values():
            await _assert_let_go(begin)


async def test_a_stream_that_its_handler_ends_is_let_go_at_once(uncollected: None) -> None:
    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield request
        await context.abort(grpc.StatusCode.NOT_FOUND, "There is no more.")

    handlers: dict[str, Any] = {"Watch": grpc.unary_stream_rpc_method_handler(stream)}
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel: Any
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await _assert_let_go(lambda: channel.unary_stream("/test.Service/Watch")(b"one"))
    finally:
        await server.stop(None)


async def _assert_let_go(begin: Callable[[], Any]) -> None:
    await _drained(begin())
    # gRPC keeps one for each method, for the call to come, and its loop the one that came last.
    before = _kept() + Counter(RPCState=1)
    for _ in range(3):
        await _drained(begin())
    async with asyncio.timeout(20):
        while _kept() - before:
            await asyncio.sleep(0.01)
