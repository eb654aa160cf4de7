"""A call that is over leaves nothing for the garbage collector: it would keep the call's last message."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from tests.support import bombs
from tests.support.service import RunningService

_INGESTS = "/model_ingest.v1.IngestService/"
_OF_A_CALL = {"RPCState", "_ServicerContext", "_MessageReceiver"}


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


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


async def test_a_call_that_is_over_is_let_go_at_once(service: RunningService, uncollected: None) -> None:
    bomb = bombs.filled(b"\x12\x00", 128 * 1024)
    channel: Any
    async with service.channel() as channel:
        calls = {
            "answered": lambda: channel.unary_unary(_INGESTS + "ListIngests")(b""),
            "refused": lambda: channel.unary_unary(_INGESTS + "GetIngest")(b""),
            "a bomb": lambda: channel.unary_unary(_INGESTS + "CreateIngest")(bomb),
            "refused stream": lambda: channel.unary_stream(_INGESTS + "WatchIngest")(b""),
            "refused upload": lambda: channel.stream_unary(_INGESTS + "Upload")(_messages(b"", b"")),
        }
        for begin in calls.values():
            # gRPC keeps one for each method, for the call to come, and its loop the one that came last.
            before = _kept() + Counter(RPCState=1)
            for _ in range(3):
                await _drained(begin())
            async with asyncio.timeout(60):
                while _kept() - before:
                    await asyncio.sleep(0.01)
