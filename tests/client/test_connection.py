"""A server that is not there, or does not speak, costs a known time and a clear error."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
from model_ingest import AsyncClient, ConnectionLostError, Limits, StalledError, UnreachableError
from model_ingest._connection import channel_options

from tests.client.conftest import QUICK
from tests.client.scripted_server import Script, ingest, serve
from tests.support.ports import ReservedPort

#: Far beyond any limit of these tests, and far below what is allowed to a client that should not wait at all.
END_SECONDS = 60
PATIENT = Limits(
    timeout_seconds=3600, connect_timeout_seconds=3600, stall_seconds=3600, patience_seconds=3600
)


@pytest.fixture
def black_hole() -> Iterator[str]:
    """Takes connections (the kernel does) and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def nobody() -> Iterator[str]:
    """Refuses connections."""
    port = ReservedPort()
    yield port.address
    port.close()


async def test_refused_connections_are_told_at_once(nobody: str):
    async with AsyncClient(nobody, limits=PATIENT) as client, asyncio.timeout(END_SECONDS):
        with pytest.raises(UnreachableError, match=f"cannot reach {nobody}: .*Connection refused") as caught:
            await client.capabilities()
    assert caught.value.exit_code == 5


async def test_a_black_hole_ends(black_hole: str):
    async with AsyncClient(black_hole, limits=QUICK) as client, asyncio.timeout(END_SECONDS):
        with pytest.raises(UnreachableError, match="no answer within 1 s"):
            await client.get_ingest("x")
        with pytest.raises(UnreachableError):
            await anext(aiter(client.watch("x")))
        with pytest.raises(UnreachableError):
            async for _ in client.verify("x"):
                pass


def test_the_defaults_end_a_black_hole_within_20_s():
    assert Limits().connect_timeout_seconds < 20


async def test_a_server_that_hangs_runs_into_the_deadline(script: Script, client: AsyncClient):
    async def hang(request, context):
        await asyncio.sleep(3600)

    script.on("GetIngest", hang)
    async with asyncio.timeout(END_SECONDS):
        with pytest.raises(StalledError, match="did not answer in time"):
            await client.get_ingest("x")


async def test_a_server_that_goes_away_was_lost_not_unreachable():
    async with serve(Script()) as script:
        script.answers("GetIngest", ingest())
        client = AsyncClient(script.address, limits=QUICK)
        await client.__aenter__()
        await client.get_ingest("x")
    with pytest.raises(ConnectionLostError, match="lost 127") as caught:
        await client.get_ingest("x")
    assert not isinstance(caught.value, UnreachableError)
    await client.close()
    await client.close()


async def test_outside_of_with_it_says_so():
    with pytest.raises(RuntimeError, match="async with"):
        await AsyncClient().capabilities()


async def test_cancelling_a_call_is_cancelling(black_hole: str):
    async with AsyncClient(black_hole) as client:
        task = asyncio.create_task(client.capabilities())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("server", ["127.0.0.1:50051", "models.example:50051"])
def test_the_options_notice_a_dead_link_within_45_s(server: str):
    """tests/faults/test_half_open.py measures it on a link; grpc's own defaults take a minute and more."""
    options = {name: int(value) for name, value in channel_options(server)}
    # Nothing moves: a ping, and the wait for its answer.
    assert options["grpc.keepalive_time_ms"] + options["grpc.keepalive_timeout_ms"] <= 45_000
    # Bytes wait to be sent: grpc's other pings are out already, and their own timeout counts.
    assert options["grpc.http2.ping_timeout_ms"] <= 45_000
    # Otherwise grpc stops asking after two pings.
    assert options["grpc.http2.max_pings_without_data"] == 0
