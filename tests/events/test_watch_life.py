"""A watch ends after its time, as planned; a client of ours does not notice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from model_ingest import AsyncClient
from model_ingest._backoff import Backoff
from model_ingest.v1.ingest_service_pb2 import CancelIngestRequest, WatchIngestRequest

from ingest_service.events import Watches
from ingest_service.vocabulary.errors import WatchRenewal
from ingest_service.vocabulary.records import Event, NewEvent
from tests.conftest import StartService
from tests.events.conftest import History
from tests.support.files import create_request
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

BOUND_SECONDS = 60.0


async def _collect(watches: Watches, history: History, seen: list[int]) -> None:
    async for item in watches.watch(history.ingest_id, seen[-1] if seen else 0):
        seen.extend([item.sequence] if isinstance(item, Event) else [])


async def test_a_watch_ends_after_its_time_and_goes_on_in_a_new_one(history: History) -> None:
    watches = Watches(history.database, history.hub, max_watches=5, watch_seconds=0.3)
    seen: list[int] = []
    rounds = 0
    while rounds < 3:
        rounds += 1
        await history.tell(rounds)
        with pytest.raises(WatchRenewal):
            await _collect(watches, history, seen)
        assert watches.active == 0
    last = await history.end()
    await _collect(watches, history, seen)
    assert seen == list(range(1, last + 1))


async def test_an_ended_ingest_is_given_whole_although_its_time_is_over(history: History) -> None:
    """Replaying takes what it takes: no watch may end without having brought anything."""
    await history.tell(600)
    last = await history.end()
    watches = Watches(history.database, history.hub, max_watches=5, watch_seconds=0.0)
    seen: list[int] = []
    while len(seen) < last:
        before = len(seen)
        try:
            await _collect(watches, history, seen)
        except WatchRenewal:
            assert len(seen) > before
    assert seen == list(range(1, last + 1))


async def test_watches_that_began_together_do_not_end_together(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    monkeypatch.setattr("ingest_service.events.watch.random.uniform", uniform)
    async with history.watch() as watch:
        await anext(watch)
    assert asked == [(0.9, 1)]


async def test_the_planned_end_says_so_on_the_wire(start_service: StartService) -> None:
    service: RunningService = await start_service(watch_seconds=1)
    ingest = await service.ingests.CreateIngest(create_request(1000))
    call = service.ingests.WatchIngest(WatchIngestRequest(name=ingest.name), timeout=BOUND_SECONDS)
    with pytest.raises(Exception, match="watch again") as ended:
        async for _ in call:
            pass
    status = rpc_status.from_call(ended.value)  # type: ignore[arg-type]
    assert status is not None
    retry = error_details_pb2.RetryInfo(retry_delay={"seconds": 99})
    found = [detail for detail in status.details if detail.Unpack(retry)]
    assert len(found) == 1
    assert retry.retry_delay.ToNanoseconds() == 0


@pytest.mark.extended
async def test_our_client_does_not_notice(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service: RunningService = await start_service(watch_seconds=1)
    streams = [0]
    real = service.service.watches.watch

    def watch(ingest_id: str, after: int) -> Any:
        streams[0] += 1
        return real(ingest_id, after)

    monkeypatch.setattr(service.service.watches, "watch", watch)
    failures: list[Exception] = []

    def after(_: Backoff, error: Exception) -> float:
        failures.append(error)
        return 0.0

    monkeypatch.setattr(Backoff, "after", after)
    ingest = await service.ingests.CreateIngest(create_request(1000))
    ingest_id = ingest.name.removeprefix("ingests/")

    async def tell(tx: Any) -> None:
        before = await tx.ingests.lock(ingest_id)
        await tx.ingests.save(before, before, [NewEvent("notice", {"message": "n"})], before.updated_at)

    async def follow() -> list[int]:
        async with AsyncClient(service.address) as client:
            return [item.event.sequence async for item in client.watch(ingest_id) if item.HasField("event")]

    watching = asyncio.create_task(follow())
    async with asyncio.timeout(BOUND_SECONDS):
        while streams[0] < 4:
            await service.service.database.transact(tell)
            await asyncio.sleep(0.05)
        end = await service.ingests.CancelIngest(CancelIngestRequest(name=ingest.name))
        assert await watching == list(range(1, end.last_sequence + 1))
    assert failures == []
