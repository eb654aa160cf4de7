"""Two transactions that wait for each other: PostgreSQL ends one, and it runs again unseen by its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ingest_service.database import Database, Transaction, engine
from ingest_service.vocabulary.errors import DatabaseDown
from ingest_service.vocabulary.records import Ingest, NewEvent
from tests.database.records import get, ingest, insert, later
from tests.support.postgres import PostgresCluster

Work = Callable[[Transaction], Awaitable[None]]


class _Crossing:
    """Two pieces of work that take two ingests in opposite order, and meet once they hold one each."""

    def __init__(self, one: Ingest, two: Ingest) -> None:
        self._pair = (one, two)
        self._meeting = asyncio.Barrier(2)
        self.runs = 0

    def work(self, *, backwards: bool) -> Work:
        first, second = reversed(self._pair) if backwards else self._pair
        is_first_run = True

        async def work(tx: Transaction) -> None:
            nonlocal is_first_run
            self.runs += 1
            await self._tell(tx, first)
            if is_first_run:
                is_first_run = False
                await self._meeting.wait()
            await self._tell(tx, second)

        return work

    @staticmethod
    async def _tell(tx: Transaction, one: Ingest) -> None:
        before = await tx.ingests.lock(one.id)
        assert before is not None
        await tx.ingests.save(before, before, [NewEvent("notice", {"message": "x"})], later(1))


async def _crossed(database: Database) -> tuple[_Crossing, tuple[Ingest, Ingest], list[BaseException | None]]:
    pair = ingest(), ingest()
    await insert(database, *pair)
    crossing = _Crossing(*pair)
    outcomes = await asyncio.gather(
        database.transact(crossing.work(backwards=False)),
        database.transact(crossing.work(backwards=True)),
        return_exceptions=True,
    )
    return crossing, pair, list(outcomes)


@pytest.fixture
async def postgresql(postgres: PostgresCluster):
    """Only PostgreSQL has row locks to wait for: SQLite's writers come one after the other."""
    database = Database(postgres.create_database("deadlock", "migrated"))
    yield database
    await database.close()
    postgres.drop_database("deadlock")


async def test_the_one_that_is_ended_runs_again(postgresql: Database) -> None:
    crossing, pair, outcomes = await _crossed(postgresql)
    assert outcomes == [None, None]
    # Under load the one that runs again may cross the other once more.
    assert crossing.runs >= 3
    for one in pair:
        assert (await get(postgresql, one)).last_sequence == 2
        events = await postgresql.read(lambda tx, one=one: tx.events.after(one.id, 0, 9))  # type: ignore[misc]
        assert [event.sequence for event in events] == [1, 2]


async def test_one_that_may_not_run_again_asks_its_caller_to(
    postgresql: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_RETRIES", 0)
    _, pair, outcomes = await _crossed(postgresql)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == [DatabaseDown.__name__, "NoneType"]
    assert [(await get(postgresql, one)).last_sequence for one in pair] == [1, 1]
