"""Engines: what each database needs said on every connection, and only that."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

#: Execution option naming how a transaction begins on SQLite: IMMEDIATE or DEFERRED.
BEGIN_OPTION = "house_begin"

_LOCK_SECONDS = 30


def create_engine(url: str, pool_size: int) -> AsyncEngine:
    """An engine for `sqlite+aiosqlite:///...` or `postgresql+asyncpg://...`; nothing is connected yet."""
    if make_url(url).get_backend_name() == "sqlite":
        return _sqlite(url, pool_size)
    return _postgresql(url, pool_size)


def _sqlite(url: str, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(
        url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_LOCK_SECONDS,
        connect_args={"timeout": _LOCK_SECONDS},
    )

    def connected(dbapi_connection: Any, record: Any) -> None:
        # The driver's own BEGIN would be DEFERRED and come late; SQLAlchemy's documentation of its SQLite
        # dialect says to switch it off and to emit BEGIN ourselves, which `begin` below does.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        # FULL syncs the log at each commit: without it a power cut takes acknowledged commits away.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    def begin(connection: Connection) -> None:
        mode = connection.get_execution_options().get(BEGIN_OPTION, "IMMEDIATE")
        # A DEFERRED transaction that reads first and then writes fails at once, in spite of the busy
        # timeout, when somebody else wrote in between; so every writer begins IMMEDIATE.
        connection.exec_driver_sql(f"BEGIN {mode}")

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "begin", begin)
    return engine


def _postgresql(url: str, pool_size: int) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_LOCK_SECONDS,
        pool_pre_ping=True,
        pool_recycle=1800,
        isolation_level="READ COMMITTED",
        connect_args={
            "timeout": 10,
            "command_timeout": _LOCK_SECONDS,
            "server_settings": {
                "application_name": "model-ingest",
                "synchronous_commit": "on",
                "lock_timeout": f"{_LOCK_SECONDS}s",
                "idle_in_transaction_session_timeout": "60s",
                "timezone": "UTC",
            },
        },
    )


def sqlite_version() -> str:
    """SQLite's version, for the log."""
    return sqlite3.sqlite_version
