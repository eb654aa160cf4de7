"""A transaction that takes too long ends: rolled back, its connection fit for the next or gone."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from sqlalchemy import text

from ingest_service.database import Database, Transaction, engine
from ingest_service.database.migrate import migrate
from ingest_service.vocabulary.errors import BackendDown
from tests.database.records import get, ingest, insert, opened, sql

#: A second or so of work within one statement, on each database.
_LONG = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000)"
    " SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(60)",
}


@pytest.fixture
async def impatient(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Its transactions may take 0.3 s."""
    await database.read(lambda tx: tx.models.count())
    monkeypatch.setattr(engine, "_TRANSACTION_SECONDS", 0.3)
    return database


async def _is_clean(database: Database) -> None:
    assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    if database.engine.dialect.name == "postgresql":
        assert await sql(
            database,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND (state LIKE 'idle in transaction%' OR query LIKE '%pg_sleep(60)' AND state = 'active')",
        ) == [(0,)]


async def test_between_statements(impatient: Database) -> None:
    one = ingest()

    async def work(tx: Transaction) -> None:
        await tx.ingests.insert(one, ())
        await asyncio.Event().wait()

    with pytest.raises(BackendDown):
        await impatient.transact(work)
    assert await impatient.read(lambda tx: tx.ingests.get(one.id)) is None
    await _is_clean(impatient)


async def test_within_a_statement(impatient: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ingest()
    dialect = impatient.engine.dialect.name

    async def work(tx: Transaction) -> None:
        await tx.ingests.insert(one, ())
        await tx.store._statements.run(text(_LONG[dialect]))

    with pytest.raises(BackendDown):
        await impatient.transact(work)
    monkeypatch.setattr(engine, "_TRANSACTION_SECONDS", 30.0)
    assert await impatient.read(lambda tx: tx.ingests.get(one.id)) is None
    await _is_clean(impatient)
    await insert(impatient, one)
    assert await get(impatient, one) == one


async def test_while_it_waits_for_a_connection(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(database_url, pool_size=1) as database:
        release, holds = asyncio.Event(), asyncio.Event()

        async def hold(tx: Transaction) -> None:
            await tx.store._statements.run(text("SELECT 1"))
            holds.set()
            await release.wait()

        holding = asyncio.create_task(database.read(hold))
        await holds.wait()
        monkeypatch.setattr(engine, "_TRANSACTION_SECONDS", 0.2)
        with pytest.raises(BackendDown):
            await database.read(hold)
        release.set()
        await holding
        await _is_clean(database)
        assert await database.read(lambda tx: tx.store._statements.run(text("SELECT 1"))) is not None


async def test_readers_that_take_their_time_leave_a_writer_its_connection_on_sqlite(sqlite_url: str) -> None:
    async with opened(sqlite_url, pool_size=3) as database:
        await migrate(database)
        release, inside = asyncio.Event(), asyncio.Barrier(3)

        async def hold(tx: Transaction) -> None:
            await tx.models.count()
            await inside.wait()
            await release.wait()

        readers = [asyncio.create_task(database.read(hold)) for _ in range(4)]
        await inside.wait()
        one = ingest()
        async with asyncio.timeout(20):
            await insert(database, one)
        assert not any(reader.done() for reader in readers)
        release.set()
        # The two that waited outside meet with us and end in their turn.
        await inside.wait()
        await asyncio.gather(*readers)


async def test_a_lock_that_comes_too_late_is_given_back_on_sqlite(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BEGIN goes on waiting in the driver's thread when its transaction has been given up."""
    async with opened(sqlite_url) as database:
        await migrate(database)
        plain = sqlite3.connect(sqlite_url.removeprefix("sqlite+aiosqlite:///"), isolation_level=None)
        plain.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(engine, "_TRANSACTION_SECONDS", 0.2)
        given_up = asyncio.create_task(insert(database, ingest()))
        await asyncio.wait({given_up}, timeout=0.6)
        plain.execute("COMMIT")
        plain.close()
        with pytest.raises(BackendDown):
            await given_up
        monkeypatch.setattr(engine, "_TRANSACTION_SECONDS", 20.0)
        await insert(database, ingest())
        await _is_clean(database)
