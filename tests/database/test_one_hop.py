"""SQLite through one trip for a statement: SQLAlchemy sees what aiosqlite's own cursor would show it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingest_service.database.one_hop import OneHopConnection


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[OneHopConnection]:
    made = OneHopConnection(str(tmp_path / "x.db"), 0.05)
    await made
    made.isolation_level = None
    await made.cursor().execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
    yield made
    await made.close()


def trips(connection: OneHopConnection, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    made: list[object] = []
    real = connection._tx

    class Counted:
        @staticmethod
        def put_nowait(item: object) -> None:
            made.append(item)
            real.put_nowait(item)  # type: ignore[arg-type]

    monkeypatch.setattr(connection, "_tx", Counted)
    return made


async def test_rows_counts_and_descriptions(connection: OneHopConnection) -> None:
    cursor = connection.cursor()
    await cursor.executemany("INSERT INTO t (b) VALUES (?)", [("x",), ("y",)])
    assert (cursor.rowcount, cursor.description) == (2, None)
    one = await connection.cursor().execute("INSERT INTO t (b) VALUES (?)", ("z",))
    assert (one.rowcount, one.lastrowid) == (1, 3)
    found = await connection.cursor().execute("SELECT a, b FROM t ORDER BY a")
    assert [column[0] for column in found.description] == ["a", "b"]
    assert await found.fetchall() == [(1, "x"), (2, "y"), (3, "z")]
    assert await found.fetchall() == []
    await found.close()


async def test_a_whole_transaction_takes_a_trip_for_each_statement_and_one_for_its_end(
    connection: OneHopConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trips(connection, monkeypatch)
    await connection.cursor().execute("BEGIN IMMEDIATE")
    assert made == []
    for _ in range(3):
        cursor = await connection.cursor().execute("SELECT a FROM t")
        await cursor.fetchall()
        await cursor.close()
    assert connection.in_transaction
    await connection.commit()
    assert len(made) == 4


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_a_transaction_without_a_statement_was_never_begun(
    connection: OneHopConnection, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    made = trips(connection, monkeypatch)
    await connection.cursor().execute("BEGIN IMMEDIATE")
    await getattr(connection, end)()
    assert made == []
    # And it does not begin with a statement of later on.
    await connection.cursor().execute("SELECT a FROM t")
    assert not connection.in_transaction


async def test_who_cannot_begin_hears_it_with_the_first_statement_and_can_begin_again(
    connection: OneHopConnection, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await connection.cursor().execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        await connection.cursor().execute("SELECT a FROM t")
    assert not connection.in_transaction
    await connection.rollback()
    other.close()
    await connection.cursor().execute("BEGIN IMMEDIATE")
    await connection.cursor().execute("INSERT INTO t (b) VALUES ('x')")
    await connection.rollback()
    found = await connection.cursor().execute("SELECT a FROM t")
    assert await found.fetchall() == []


async def test_a_commit_that_fails_leaves_no_transaction_behind(connection: OneHopConnection) -> None:
    await connection.cursor().execute("PRAGMA foreign_keys=ON")
    await connection.cursor().execute(
        "CREATE TABLE u (a INTEGER REFERENCES t(a) DEFERRABLE INITIALLY DEFERRED)"
    )
    await connection.cursor().execute("BEGIN IMMEDIATE")
    await connection.cursor().execute("INSERT INTO u VALUES (99)")
    with pytest.raises(sqlite3.IntegrityError):
        await connection.commit()
    assert not connection.in_transaction
