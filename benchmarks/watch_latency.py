"""From the commit of an event to the client that watches: p50, p99, and what NOTIFY costs a commit.

    .venv/bin/python -m benchmarks.watch_latency [--events N]

Real server processes, real gRPC, a PostgreSQL of its own that syncs its commits. The events are written by
the watched server's own process or by one that serves nobody; from the moment at which `transact` returned
to that at which the client has the message, on the host's one monotonic clock.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from model_ingest.v1.ingest_service_pb2 import WatchIngestRequest

from ingest_service.database import Database, hints_of
from ingest_service.database.migrate import migrate
from ingest_service.vocabulary.records import NewEvent
from tests.database.records import ingest, insert
from tests.support.files import create_request
from tests.support.postgres import PostgresCluster
from tests.support.service import RunningService, ServiceProcess, environment, settings_for
from tests.support.stubs import ingest_stub

_NEWS = [NewEvent("notice", {"message": "n"})]
_PAUSE_SECONDS = 0.03


async def tell(database: Database, ingest_id: str) -> int:
    """One event more; its number."""

    async def work(tx: Any) -> int:
        before = await tx.ingests.lock(ingest_id)
        return int((await tx.ingests.save(before, before, _NEWS, before.updated_at)).last_sequence)

    return await database.transact(work)


async def measure(stub: Any, database: Database, ingest_id: str, events: int) -> list[float]:
    """Milliseconds from each commit's return to its event at the client."""
    arrived: dict[int, float] = {}
    caught_up = asyncio.Event()

    async def follow() -> None:
        async for item in stub.WatchIngest(WatchIngestRequest(name=f"ingests/{ingest_id}")):
            if item.HasField("event"):
                arrived[item.event.sequence] = time.perf_counter()
            else:
                caught_up.set()

    following = asyncio.create_task(follow())
    await caught_up.wait()
    committed: dict[int, float] = {}
    for _ in range(events):
        number = await tell(database, ingest_id)
        committed[number] = time.perf_counter()
        await asyncio.sleep(_PAUSE_SECONDS)
    while not committed.keys() <= arrived.keys():
        await asyncio.sleep(0.01)
    following.cancel()
    # The client may well be faster than the return of `transact`.
    return sorted(max(0.0, arrived[number] - committed[number]) * 1000 for number in committed)


@contextlib.asynccontextmanager
async def served(url: str, directory: Path) -> AsyncIterator[RunningService]:
    """A service in this process."""
    async with RunningService(settings_for(directory, url)) as running:
        yield running


async def same_process(url: str, directory: Path, events: int) -> list[float]:
    """The server that does the work is the one that is watched."""
    async with served(url, directory) as running:
        ingest = await running.ingests.CreateIngest(create_request(1000))
        return await measure(running.ingests, running.service.database, ingest.name.partition("/")[2], events)


async def other_process(url: str, directory: Path, events: int) -> list[float]:
    """The work is done here, the watched server is another process."""
    async with ServiceProcess(environment(directory, url), directory.parent / "log") as process:
        database = Database(url)
        async with grpc.aio.insecure_channel(process.address) as channel:
            stub = ingest_stub(channel)
            ingest = await stub.CreateIngest(create_request(1000))
            await asyncio.sleep(1)  # its hints are connected
            found = await measure(stub, database, ingest.name.partition("/")[2], events)
        await database.close()
    return found


async def commits_per_second(url: str, *, notifies: bool, listeners: int, seconds: float = 3.0) -> float:
    """Eight at once, each on an ingest of its own."""
    database = Database(url, pool_size=8)
    database._announces = notifies
    others = [Database(url) for _ in range(listeners)]
    hints = [hints_of(other, lambda _: None) for other in others]
    for hint in hints:
        hint.start()
    one_each = [ingest() for _ in range(8)]
    await insert(database, *one_each)
    count = 0
    ends = time.perf_counter() + seconds

    async def work(ingest_id: str) -> None:
        nonlocal count
        while time.perf_counter() < ends:
            await tell(database, ingest_id)
            count += 1

    await asyncio.gather(*(work(one.id) for one in one_each))
    for hint in hints:
        await hint.stop()
    for each in (database, *others):
        await each.close()
    return count / seconds


async def look_cost(url: str, seconds: float = 5.0) -> float:
    """Percent of one core that the look at a quiet SQLite file takes."""
    database = Database(url)
    await migrate(database)
    hints = hints_of(database, lambda _: None)
    hints.start()
    await asyncio.sleep(1)
    began = os.times()
    await asyncio.sleep(seconds)
    ended = os.times()
    await hints.stop()
    await database.close()
    return (ended.user + ended.system - began.user - began.system) / seconds * 100


def row(name: str, milliseconds: list[float]) -> str:
    """A line of the table."""
    p99 = statistics.quantiles(milliseconds, n=100)[98]
    return f"| {name} | {statistics.median(milliseconds):.1f} | {p99:.1f} | {milliseconds[-1]:.1f} |"


async def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="model-ingest-latency-") as text:
        await run(Path(text), options.events)


async def run(directory: Path, events: int) -> None:
    """All of it."""
    (directory / "postgres").mkdir()
    for parent in (directory, directory / "postgres"):
        parent.chmod(0o755)
    cluster = PostgresCluster(directory / "postgres")
    cluster.start(is_durable=True)
    try:
        print("| commit to client, ms | p50 | p99 | most |\n|---|---|---|---|")
        ways: list[tuple[str, str, Callable[[str, Path, int], Awaitable[list[float]]]]] = [
            ("sqlite", "same process", same_process),
            ("postgresql", "same replica", same_process),
            ("postgresql", "other replica", other_process),
            ("sqlite", "other process", other_process),
        ]
        for number, (kind, where, way) in enumerate(ways):
            place = directory / f"{number}"
            place.mkdir()
            sqlite = f"sqlite+aiosqlite:///{place / 'x.db'}"
            url = sqlite if kind == "sqlite" else cluster.create_database(f"n{number}")
            print(row(f"{kind}, {where}", await way(url, place / "data", events)), flush=True)
        print("\n| event commits a second, 8 at once, PostgreSQL | median of 3 |\n|---|---|")
        cluster.create_database("empty")
        database = Database(cluster.url("empty"))
        await migrate(database)
        await database.close()
        arms = {
            "without NOTIFY": (False, 0),
            "NOTIFY, nobody listens": (True, 0),
            "NOTIFY, 3 listen": (True, 3),
        }
        rates: dict[str, list[float]] = {name: [] for name in arms}
        # In turns, each in a database of its own: rows that were written often are slower to write.
        for turn in range(3):
            for name, (notifies, listeners) in arms.items():
                url = cluster.create_database(f"turn{turn}_{len(name)}", "empty")
                rate = await commits_per_second(url, notifies=notifies, listeners=listeners)
                rates[name].append(rate)
        for name, found in rates.items():
            print(f"| {name} | {statistics.median(found):.0f} ({min(found):.0f} to {max(found):.0f}) |")
        quiet = f"sqlite+aiosqlite:///{directory / 'quiet.db'}"
        print(f"\nlooking at a quiet SQLite file: {await look_cost(quiet):.2f} % of a core")
    finally:
        cluster.stop("immediate")


if __name__ == "__main__":
    asyncio.run(main())
