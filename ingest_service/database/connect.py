"""Engines: what each database needs said on every connection, and only that."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Mapping
from typing import Any

import aiosqlite
from sqlalchemy import Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from ingest_service.database.one_hop import OneHopConnection
from ingest_service.database.postgres_url import take_libpq_names

#: Execution option naming how a transaction begins on SQLite: IMMEDIATE or DEFERRED.
BEGIN_OPTION = "house_begin"

#: Execution options of a reading transaction, by dialect: one snapshot for all its statements. On PostgreSQL
#: READ COMMITTED would take a new one for each, and an ingest could be read with the files of a later moment.
READING: Mapping[str, Mapping[str, Any]] = {
    "sqlite": {BEGIN_OPTION: "DEFERRED"},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}
#: The same of a writing one. READ COMMITTED on PostgreSQL: what is read after a lock was waited for has to be
#: what the former holder committed.
WRITING: Mapping[str, Mapping[str, Any]] = {
    "sqlite": {BEGIN_OPTION: "IMMEDIATE"},
    "postgresql": {},
}

#: A lock that somebody else holds is waited for so long.
LOCK_SECONDS = 30


def create_engine(url: str, pool_size: int) -> AsyncEngine:
    """An engine for `sqlite+aiosqlite:///...` or `postgresql+asyncpg://...`; nothing is connected yet."""
    if make_url(url).get_backend_name() == "sqlite":
        return _sqlite(url, pool_size)
    return _postgresql(url, pool_size)


def _sqlite(url: str, pool_size: int) -> AsyncEngine:
    path = make_url(url).database or ""

    async def creator() -> aiosqlite.Connection:
        return await OneHopConnection(path, LOCK_SECONDS)

    engine = create_async_engine(
        url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=LOCK_SECONDS,
        async_creator=creator,
        # Every transaction of ours is ended where it was begun (`engine.py`): to roll back once more when a
        # connection goes back is a trip to the driver's thread for nothing.
        pool_reset_on_return=None,
    )

    def connected(dbapi_connection: Any, record: Any) -> None:
        # The driver's own BEGIN would be DEFERRED and come late; SQLAlchemy's documentation of its SQLite
        # dialect says to switch it off and to emit BEGIN ourselves, which `begin` below does.
        dbapi_connection.isolation_level = None
        dbapi_connection.run_async(_use_wal)
        cursor = dbapi_connection.cursor()
        # FULL syncs the log at each commit: without it a power cut takes acknowledged commits away.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    def begin(connection: Connection) -> None:
        mode = connection.get_execution_options().get(BEGIN_OPTION, "IMMEDIATE")
        # A DEFERRED transaction that reads first and then writes fails at once, in spite of the busy
        # timeout, when somebody else wrote in between; so every writer begins IMMEDIATE.
        connection.exec_driver_sql(f"BEGIN {mode}")

    def invalidated(dbapi_connection: Any, record: Any, error: BaseException | None) -> None:
        dbapi_connection.run_async(_let_go)

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "invalidate", invalidated)
    event.listen(engine.sync_engine, "begin", begin)
    return engine


async def _use_wal(connection: aiosqlite.Connection) -> None:
    """The log of a new file can be switched to by one connection at a time, and SQLite does not wait for it.

    The busy timeout is of no use here: whoever comes second is told "locked" at once.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LOCK_SECONDS
    while True:
        try:
            async with connection.execute("PRAGMA journal_mode=WAL"):
                return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or loop.time() > deadline:
                raise
        await asyncio.sleep(0.01)


async def _let_go(connection: aiosqlite.Connection) -> None:
    """Ends the transaction of a connection that is given up in the middle of a statement.

    Closing it is not enough: as long as anybody refers to the statement, SQLite keeps the connection, and
    with it the write lock, although it is closed. The statement that runs is waited for.
    """
    with contextlib.suppress(sqlite3.Error, ValueError):
        await asyncio.shield(connection.rollback())


def _postgresql(url: str, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=LOCK_SECONDS,
        pool_pre_ping=True,
        pool_recycle=1800,
        isolation_level="READ COMMITTED",
        connect_args={
            "timeout": 10,
            "command_timeout": LOCK_SECONDS,
            "server_settings": {
                "application_name": "model-ingest",
                "synchronous_commit": "on",
                "lock_timeout": f"{LOCK_SECONDS}s",
                "idle_in_transaction_session_timeout": "60s",
                "timezone": "UTC",
            },
        },
    )

    def connecting(dialect: Any, record: Any, positional: list[Any], arguments: dict[str, Any]) -> None:
        take_libpq_names(arguments)

    event.listen(engine.sync_engine, "do_connect", connecting)
    return engine


def listening_arguments(engine: AsyncEngine) -> dict[str, Any]:
    """What `asyncpg.connect` takes for a connection beside the pool: from the engine's URL, as the pool's."""
    _, arguments = engine.dialect.create_connect_args(engine.url)
    # SQLAlchemy's own words for its adapter, which asyncpg does not know.
    for name in ("async_creator_fn", "prepared_statement_cache_size", "prepared_statement_name_func"):
        arguments.pop(name, None)
    settings = {"application_name": "model-ingest-listen"}
    arguments = {"timeout": 10, **arguments, "server_settings": settings}
    arguments.pop("application_name", None)
    take_libpq_names(arguments)
    return arguments


def sqlite_version() -> str:
    """SQLite's version, for the log."""
    return sqlite3.sqlite_version
