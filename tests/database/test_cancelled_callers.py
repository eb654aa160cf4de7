"""A caller that is cancelled, at whatever moment, leaves whole transactions and a clean pool behind.

peers.md section 4 number 25: cancelled tasks leak half-used connections in SQLAlchemy's asyncio mode.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import event

from ingest_service.database import Database, Transaction
from ingest_service.vocabulary.records import Ingest, NewEvent
from tests.database.records import deployment, file, ingest, insert, sql, until

_EVENTS = [NewEvent("notice", {"message": "x"})] * 3


class Deliberate(Exception):
    """Ours."""


async def _settled(database: Database) -> None:
    await until(lambda: not database._running)
    assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def _is_whole(database: Database, one: Ingest) -> bool:
    """True if all of it is there, False if nothing is; anything else fails."""
    counts = {
        table: (await sql(database, f"SELECT count(*) FROM {table} WHERE {column} = :id", id=one.id))[0][0]
        for table, column in (
            ("ingests", "id"),
            ("files", "ingest_id"),
            ("deployments", "ingest_id"),
            ("events", "ingest_id"),
        )
    }
    assert counts in (
        {"ingests": 1, "files": 1, "deployments": 1, "events": 3},
        dict.fromkeys(counts, 0),
    )
    return bool(counts["ingests"])


async def _idle_in_transaction(database: Database) -> list[Any]:
    if database.engine.dialect.name == "sqlite":
        return []
    return await sql(
        database,
        "SELECT pid, state, query FROM pg_stat_activity WHERE datname = current_database()"
        " AND state LIKE 'idle in transaction%'",
    )


def _new() -> Ingest:
    return ingest(file(), deployment())


@pytest.mark.extended_when("postgresql")
async def test_a_caller_cancelled_at_each_turn_of_the_loop(database: Database) -> None:
    outcomes = set()
    for turns in range(60):
        one = _new()
        caller = asyncio.create_task(insert(database, one, events=_EVENTS))
        for _ in range(turns):
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        await _settled(database)
        outcomes.add((caller.cancelled(), await _is_whole(database, one)))
        assert await _idle_in_transaction(database) == []
    # Cancelled before it began; cancelled, and committed all the same.
    assert {(True, False), (True, True)} <= outcomes


@pytest.mark.parametrize("fails", [False, True], ids=["commits", "rolls back"])
async def test_a_caller_cancelled_at_each_statement(database: Database, fails: bool) -> None:
    """Also at the commit, or the rollback, itself."""

    async def work(tx: Transaction, one: Ingest) -> None:
        await tx.ingests.insert(one, _EVENTS)
        if fails:
            raise Deliberate

    async def run(one: Ingest, moment: int) -> bool:
        """Cancels the caller at that moment of the transaction; False if it has not so many."""
        reached = 0

        def reach(*_: Any, **__: Any) -> None:
            nonlocal reached
            reached += 1
            if reached == moment:
                caller.cancel()

        engine = database.engine.sync_engine
        names = ("begin", "before_cursor_execute", "commit", "rollback")
        caller = asyncio.create_task(database.transact(lambda tx: work(tx, one)))
        for name in names:
            event.listen(engine, name, reach)
        try:
            await asyncio.gather(caller, return_exceptions=True)
            await _settled(database)
        finally:
            for name in names:
                event.remove(engine, name, reach)
        assert caller.cancelled() == (reached >= moment)
        return reached >= moment

    moment = 1
    while True:
        one = _new()
        was_reached = await run(one, moment)
        assert await _is_whole(database, one) is not fails
        assert await _idle_in_transaction(database) == []
        if not was_reached:
            break
        moment += 1
    # begin, four inserts, and the end; BEGIN is a statement of its own on SQLite.
    assert moment - 1 in {6, 7}


@pytest.mark.extended_when("sqlite")
async def test_many_cancelled_callers_leave_the_pool_usable(database: Database) -> None:
    many = [_new() for _ in range(40)]
    callers = [asyncio.create_task(insert(database, one, events=_EVENTS)) for one in many]
    for index, caller in enumerate(callers):
        await asyncio.sleep(0)
        if index % 2:
            caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    await _settled(database)
    assert [await _is_whole(database, one) for one in many[::2]] == [True] * 20
    for one in many[1::2]:
        await _is_whole(database, one)
    assert await _idle_in_transaction(database) == []


async def test_closing_waits_for_what_a_cancelled_caller_left_running(database: Database) -> None:
    one = _new()
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def work(tx: Transaction) -> None:
        await tx.ingests.insert(one, _EVENTS)
        begun.set()
        await may_end.wait()

    caller = asyncio.create_task(database.transact(work))
    await begun.wait()
    caller.cancel()
    closing = asyncio.create_task(database.close())
    await asyncio.wait({closing}, timeout=0.1)
    assert not closing.done()
    may_end.set()
    await closing
    assert await _is_whole(database, one)
