"""What every pooled connection is set to: durable commits, enforced foreign keys, the right isolation.

design.md section 4: "SQLite runs synchronous=FULL, PostgreSQL synchronous_commit=on; a test asserts both".
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from ingest_service.database import Conflict, Database, Transaction
from ingest_service.database import engine as database_engine
from ingest_service.database.connect import READING, create_engine
from ingest_service.database.migrate import migrate
from tests.database.records import opened, sql
from tests.support.postgres import PostgresCluster

_POOL = 8


@pytest.fixture(autouse=True)
def _engines_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests have theirs without syncs (tests/support/quick_database.py)."""
    monkeypatch.setattr(database_engine, "create_engine", create_engine)


async def _on_every_connection(database: Database, statement: str) -> list[Any]:
    async with contextlib.AsyncExitStack() as stack:
        connections = [
            await (await stack.enter_async_context(database.engine.connect())).execution_options(
                **READING[database.engine.dialect.name]
            )
            for _ in range(_POOL)
        ]
        assert database.engine.pool.checkedout() == _POOL  # type: ignore[attr-defined]
        return [(await connection.execute(text(statement))).scalar_one() for connection in connections]


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)]
)
async def test_every_sqlite_connection_is_set(sqlite_url: str, pragma: str, value: object) -> None:
    async with opened(sqlite_url, pool_size=_POOL) as database:
        assert await _on_every_connection(database, f"PRAGMA {pragma}") == [value] * _POOL


async def test_every_postgresql_connection_commits_durably_whatever_the_server_says(
    postgres: PostgresCluster,
) -> None:
    url = postgres.create_database("careless")
    postgres.sql("ALTER DATABASE careless SET synchronous_commit = off")
    assert postgres.sql("SHOW synchronous_commit", "careless").strip() == "off"
    async with opened(url, pool_size=_POOL) as database:
        assert await _on_every_connection(database, "SHOW synchronous_commit") == ["on"] * _POOL
        assert await _on_every_connection(database, "SHOW timezone") == ["UTC"] * _POOL
    postgres.drop_database("careless")


async def test_a_missing_parent_is_refused(database: Database) -> None:
    with pytest.raises(IntegrityError):
        await sql(
            database,
            "INSERT INTO events (ingest_id, sequence, created_at, kind, body)"
            " VALUES ('none', 1, 0, 'x', '{}')",
        )


async def _said(tx: Transaction, *statements: str) -> list[str]:
    run = tx.store._statements.run
    return [str((await run(text(statement))).scalar_one()) for statement in statements]


async def test_reading_and_writing_transactions_on_postgresql_have_their_isolation(
    postgres: PostgresCluster,
) -> None:
    asked = ("SHOW transaction_isolation", "SHOW transaction_read_only")
    # One connection: what a read set on it must not stay for the next write, nor the other way round.
    async with opened(postgres.create_database("isolation"), pool_size=1) as database:
        for _ in range(2):
            assert await database.read(lambda tx: _said(tx, *asked)) == ["repeatable read", "on"]
            assert await database.transact(lambda tx: _said(tx, *asked)) == ["read committed", "off"]
    postgres.drop_database("isolation")


async def test_a_writer_on_sqlite_holds_the_lock_from_its_first_moment(sqlite_url: str) -> None:
    """A DEFERRED one that reads, and writes after somebody else did, fails at once: it cannot wait."""
    async with opened(sqlite_url) as one, opened(sqlite_url) as other:
        await migrate(one)
        looked = asyncio.Event()

        async def look_then_write(tx: Transaction) -> None:
            assert await tx.store.store_id() is None
            looked.set()
            await asyncio.wait({rival}, timeout=0.5)
            await tx.store.set_store_id("first")

        async def write_in_between() -> None:
            await looked.wait()
            with pytest.raises(Conflict):
                await other.transact(lambda tx: tx.store.set_store_id("second"))

        rival = asyncio.create_task(write_in_between())
        await one.transact(look_then_write)
        await rival
        assert await other.read(lambda tx: tx.store.store_id()) == "first"
