"""Health tells the truth from the first accepted connection to the last: per service and as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ingest_service.rpc.health_servicer import HealthService
from ingest_service.rpc.server import SERVICE_NAMES
from ingest_service.vocabulary.errors import Draining, StorageFailed
from tests.conftest import StartService
from tests.rpc.refusals import refused, refused_without_reason
from tests.rpc.scenes import GIVE_UP_SECONDS
from tests.support.service import RunningService, settings_for

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
NAMES = ("", *SERVICE_NAMES)


async def check(stub: Any, service: str = "") -> int:
    """What Health says now."""
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=GIVE_UP_SECONDS)
    return int(answer.status)


def watch(stub: Any, service: str = "") -> Any:
    """A watch of one service's health."""
    return stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=GIVE_UP_SECONDS)


async def next_status(call: Any) -> int:
    """The watch's next word."""
    return int((await call.read()).status)


def test_the_services_are_those_of_the_protos() -> None:
    assert SERVICE_NAMES == ("model_ingest.v1.IngestService", "model_ingest.v1.CatalogService")


async def test_serving_as_a_whole_and_per_service(service: RunningService) -> None:
    assert {name: await check(service.health, name) for name in NAMES} == dict.fromkeys(NAMES, SERVING)
    unknown = service.health.Check(health_pb2.HealthCheckRequest(service="nobody"))
    await refused_without_reason(unknown, grpc.StatusCode.NOT_FOUND)


@pytest.fixture
async def starting(tmp_path: Path, sqlite_url: str) -> AsyncIterator[tuple[RunningService, asyncio.Event]]:
    """A service that listens already and whose start goes on when the event is set."""
    running = RunningService(settings_for(tmp_path / "data", sqlite_url))
    listening, go_on = asyncio.Event(), asyncio.Event()
    begin = running.service.readiness.start

    async def readiness_start() -> None:
        listening.set()
        await go_on.wait()
        await begin()

    running.service.readiness.start = readiness_start  # type: ignore[method-assign]
    entering = asyncio.create_task(running.__aenter__())
    await asyncio.wait_for(listening.wait(), GIVE_UP_SECONDS)
    yield running, go_on
    go_on.set()
    await entering
    await running.__aexit__()


async def test_not_serving_before_the_start_is_done(
    starting: tuple[RunningService, asyncio.Event],
) -> None:
    running, go_on = starting
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.service.port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert {name: await check(stub, name) for name in NAMES} == dict.fromkeys(NAMES, NOT_SERVING)
        calls = [watch(stub, name) for name in NAMES]
        assert [await next_status(call) for call in calls] == [NOT_SERVING] * 3
        go_on.set()
        assert [await next_status(call) for call in calls] == [SERVING] * 3
        for call in calls:
            call.cancel()


async def test_a_watch_follows_readiness_down_and_up_again(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start_service(readiness_seconds=0.1)
    call = watch(running.health, SERVICE_NAMES[0])
    unknown = watch(running.health, "nobody")
    assert await next_status(call) == SERVING
    assert await next_status(unknown) == SERVICE_UNKNOWN

    async def fail() -> None:
        raise StorageFailed

    with monkeypatch.context() as patch:
        patch.setattr(running.service.store, "probe", fail)
        assert await next_status(call) == NOT_SERVING
        assert await check(running.health) == NOT_SERVING
    assert await next_status(call) == SERVING
    call.cancel()
    unknown.cancel()


async def test_a_drain_says_not_serving_to_every_watch_and_ends_it(service: RunningService) -> None:
    """Ends it: a watch of Health must not hold up the drain until the grace is over."""
    calls = [watch(service.health, name) for name in NAMES]
    assert [await next_status(call) for call in calls] == [SERVING] * 3
    await asyncio.wait_for(service.service.stop(grace_seconds=600), GIVE_UP_SECONDS)
    for call in calls:
        assert await next_status(call) == NOT_SERVING
        await refused(call.read(), "DRAINING")


async def test_a_server_that_stops_says_so_without_being_told(service: RunningService) -> None:
    call = watch(service.health)
    assert await next_status(call) == SERVING
    await asyncio.wait_for(service.service.rpc.stop(grace_seconds=600), GIVE_UP_SECONDS)
    assert await next_status(call) == NOT_SERVING
    await refused(call.read(), "DRAINING")


async def test_a_watch_that_is_still_sending_when_a_drain_begins_says_not_serving_before_it_ends() -> None:
    health = HealthService(["a"])
    health.set_serving(serving=True)
    requests = [health_pb2.HealthCheckRequest(service=name) for name in ("", "a")]
    watches = [health.Watch(request, None) for request in requests]
    assert [(await anext(one)).status for one in watches] == [SERVING] * 2
    health.drain()
    watches += [health.Watch(request, None) for request in requests]
    assert [(await anext(one)).status for one in watches] == [NOT_SERVING] * 4
    for one in watches:
        with pytest.raises(Draining):
            await anext(one)


async def test_after_a_drain_nothing_serves_again() -> None:
    health = HealthService([])
    health.set_serving(serving=True)
    health.drain()
    health.set_serving(serving=True)
    answer = await health.Check(health_pb2.HealthCheckRequest(), None)
    assert answer.status == NOT_SERVING
