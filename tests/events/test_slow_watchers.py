"""A watcher that stops reading, or leaves, costs its flag at most, and others nothing at all."""

from __future__ import annotations

import asyncio
import gc
from typing import cast

import grpc
import pytest
from model_ingest.v1.ingest_service_pb2 import CancelIngestRequest, WatchIngestRequest, WatchIngestResponse

from ingest_service.events import Hub
from ingest_service.events.hub import wait_for_flag
from ingest_service.vocabulary.records import Event
from tests.events.conftest import History
from tests.support.files import create_request
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

BOUND_SECONDS = 30.0


async def test_a_watcher_that_stops_reading_holds_no_connection_and_no_event(history: History) -> None:
    async with history.watch() as slow, asyncio.timeout(BOUND_SECONDS):
        first = await anext(slow)
        assert isinstance(first, Event)
        for _ in range(4):
            await history.tell(250)
        gc.collect()
        held = [thing for thing in gc.get_objects() if isinstance(thing, Event)]
        assert len(held) <= 3
        assert history.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        last = await history.end()
        assert await history.numbers() == list(range(1, last + 1))
        rest = [item.sequence async for item in slow if isinstance(item, Event)]
        assert rest == list(range(first.sequence + 1, last + 1))


@pytest.mark.parametrize("where", ["waiting", "between items", "never begun"])
async def test_a_cancelled_watcher_leaves_nothing(history: History, where: str) -> None:
    got = asyncio.Event()

    async def follow() -> None:
        async with history.watch() as watch:
            async for item in watch:
                if not isinstance(item, Event):
                    got.set()
                if where == "between items":
                    got.set()
                    await asyncio.sleep(3600)

    task = asyncio.create_task(follow())
    if where != "never begun":
        async with asyncio.timeout(BOUND_SECONDS):
            await got.wait()
        assert history.watches.active == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert history.watches.active == 0
    assert not history.hub._waiting


async def test_a_flag_is_set_for_its_ingest_only_and_taken_back() -> None:
    hub = Hub()
    with hub.waiting_for("a") as one, hub.waiting_for("a") as two, hub.waiting_for("b") as other:
        with hub.waiting_for_any() as anybody:
            hub.wake("a")
            assert one.is_set()
            assert two.is_set()
            assert anybody.is_set()
            assert not other.is_set()
            hub.wake_everybody()
            assert other.is_set()
        hub.wake("nobody waits for this one")
    assert not hub._waiting
    assert not hub._all


async def test_waiting_for_a_flag_ends_with_it_or_with_its_time() -> None:
    flag = asyncio.Event()
    assert not await wait_for_flag(flag, 0.001)
    flag.set()
    assert await wait_for_flag(flag, 3600)


async def test_clients_that_stop_reading_or_leave_are_let_go_by_the_server(service: RunningService) -> None:
    ingest = await service.ingests.CreateIngest(create_request(1000))
    calls = [service.ingests.WatchIngest(WatchIngestRequest(name=ingest.name)) for _ in range(20)]
    for call in calls:
        assert cast("WatchIngestResponse", await call.read()).event.sequence == 1
    assert service.service.watches.active == 20
    for call in calls[:10]:
        call.cancel()
    async with asyncio.timeout(BOUND_SECONDS):
        while service.service.watches.active > 10:
            await asyncio.sleep(0.01)
        await service.ingests.CancelIngest(CancelIngestRequest(name=ingest.name))
        for call in calls[10:]:
            while await call.read() is not grpc.aio.EOF:
                pass
        while service.service.watches.active:
            await asyncio.sleep(0.01)
    assert not service.service.hub._waiting
