"""PostgreSQL restarts while ingests are watched: no event lost or doubled, no connection leaked."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
from model_ingest import AsyncClient, IngestError, Limits
from model_ingest._backoff import Backoff
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest

from ingest_service.vocabulary.errors import BackendDown
from ingest_service.vocabulary.records import NewEvent
from tests.events.test_replicas import replicas
from tests.support.files import create_request
from tests.support.postgres import PostgresCluster
from tests.support.service import RunningService

PATIENT = Limits(timeout_seconds=120, stall_seconds=60, patience_seconds=300)
#: The pool of each service, and its one connection that listens.
MOST_CONNECTIONS = 8 + 1


async def insist(work: Any) -> Any:
    """Until the database is back."""
    while True:
        with contextlib.suppress(BackendDown):
            return await work()
        await asyncio.sleep(0.1)


async def write_history(service: RunningService, name: str, rounds: int, pause_seconds: float) -> None:
    """Notices in bursts, then a cancel."""
    ingest_id = name.removeprefix("ingests/")
    dice = random.Random(name)

    async def tell(tx: Any) -> None:
        before = await tx.ingests.lock(ingest_id)
        news = [NewEvent("notice", {"message": "n"})] * dice.randint(1, 4)
        await tx.ingests.save(before, before, news, before.updated_at)

    for _ in range(rounds):
        await insist(lambda: service.service.database.transact(tell))
        await asyncio.sleep(dice.uniform(0, pause_seconds))
    await insist(lambda: service.service.ingests.cancel(ingest_id))


async def follow(address: str, name: str) -> list[int]:
    """What a client of ours sees; it hides the breaks."""
    async with AsyncClient(address, limits=PATIENT) as client:
        return [item.event.sequence async for item in client.watch(name) if item.HasField("event")]


async def broken(watching: list[asyncio.Task[list[int]]], breaks: list[Exception]) -> None:
    """Waits until as many streams broke as there are watches: each reads at least once a second."""
    wanted = len(breaks) + sum(not task.done() for task in watching)
    async with asyncio.timeout(60):
        while len(breaks) < wanted and not all(task.done() for task in watching):
            await asyncio.sleep(0.05)


def noted_breaks(patch: pytest.MonkeyPatch) -> list[Exception]:
    """What made clients of ours try again, from now on."""
    breaks: list[Exception] = []
    real = Backoff.after

    def after(backoff: Backoff, error: IngestError) -> float:
        breaks.append(error)
        return real(backoff, error)

    patch.setattr(Backoff, "after", after)
    return breaks


async def run(
    cluster: PostgresCluster, url: str, directory: Path, *, ingests: int, restarts: int, rounds: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        breaks = noted_breaks(patch)
        await run_with(cluster, url, directory, breaks, ingests=ingests, restarts=restarts, rounds=rounds)
    assert len(breaks) >= ingests


async def run_with(
    cluster: PostgresCluster,
    url: str,
    directory: Path,
    breaks: list[Exception],
    *,
    ingests: int,
    restarts: int,
    rounds: int,
) -> None:
    async with replicas(url, directory, 2) as services:
        worker, other = services
        names = [
            (await worker.ingests.CreateIngest(create_request(1000, f"m{number}"))).name
            for number in range(ingests)
        ]
        watching = [
            # Half of them where the work is done, half elsewhere.
            asyncio.create_task(follow((worker, other)[number % 2].address, name))
            for number, name in enumerate(names)
        ]
        writing = [
            asyncio.create_task(write_history(worker, name, rounds, pause_seconds=restarts * 4 / rounds))
            for name in names
        ]
        dice = random.Random(restarts)
        for _ in range(restarts):
            await asyncio.sleep(dice.uniform(0.2, 2))
            await asyncio.to_thread(cluster.stop, dice.choice(["fast", "immediate"]))
            await broken(watching, breaks)
            await asyncio.to_thread(cluster.start)
        await asyncio.gather(*writing)
        for name, seen in zip(names, await asyncio.gather(*watching), strict=True):
            last = (await worker.ingests.GetIngest(GetIngestRequest(name=name))).last_sequence
            assert last > rounds
            assert seen == list(range(1, last + 1))
        for service in services:
            assert service.service.watches.active == 0
            assert not service.service.watches._feeds
        await settled(cluster, url, services)


async def settled(cluster: PostgresCluster, url: str, services: list[RunningService]) -> None:
    """Both listen again, and each holds no more connections than its pool and that one."""
    where = f"FROM pg_stat_activity WHERE datname = '{url.rpartition('/')[2]}'"
    listening = f"SELECT count(*) {where} AND application_name = 'model-ingest-listen'"
    async with asyncio.timeout(60):
        while int(await asyncio.to_thread(cluster.sql, listening)) != len(services):
            await asyncio.sleep(0.1)
        while any(one.service.database.engine.pool.checkedout() for one in services):  # type: ignore[attr-defined]
            await asyncio.sleep(0.1)
    everybody = int(await asyncio.to_thread(cluster.sql, f"SELECT count(*) {where}"))
    assert everybody <= len(services) * MOST_CONNECTIONS


@pytest.mark.extended
async def test_two_restarts_during_watches(
    postgres: PostgresCluster, postgres_url: str, tmp_path: Path
) -> None:
    await run(postgres, postgres_url, tmp_path / "data", ingests=4, restarts=2, rounds=40)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_restarts_at_random_during_fifty_ingests_and_fifty_watches(
    postgres: PostgresCluster, postgres_url: str, tmp_path: Path
) -> None:
    await run(postgres, postgres_url, tmp_path / "data", ingests=50, restarts=12, rounds=60)
