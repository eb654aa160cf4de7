"""Waits at boot until nobody else has a SQLite file locked.

SQLite's own waiting would do, but it says nothing and cannot be interrupted: a stop would wait for it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3

from sqlalchemy.ext.asyncio import AsyncEngine

_PAUSE_SECONDS = 0.1
#: Others write too, each for a moment: that is not worth a line.
_SILENT_SECONDS = 1.0
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_log = logging.getLogger(__name__)


async def wait_until_unlocked(engine: AsyncEngine, most_seconds: float) -> None:
    """Returns once a write transaction could begin. Raises sqlite3.Error, also when it was locked to the end.

    One log line says that it waits. Does nothing for PostgreSQL, which is waited for in the migration.
    """
    if engine.dialect.name != "sqlite":
        return
    (file, *_), options = engine.dialect.create_connect_args(engine.url)
    loop = asyncio.get_running_loop()
    began, is_told = loop.time(), False
    while True:
        try:
            await asyncio.to_thread(_begin_and_end, file, is_uri=bool(options.get("uri", False)))
        except sqlite3.OperationalError as error:
            waited = loop.time() - began
            if error.sqlite_errorcode & 0xFF not in _BUSY or waited >= most_seconds:
                raise
            if waited >= _SILENT_SECONDS and not is_told:
                is_told = True
                _log.warning(
                    "waiting for the database: another program has locked it",
                    extra={"file": file, "most_seconds": most_seconds},
                )
        else:
            return
        await asyncio.sleep(_PAUSE_SECONDS)


def _begin_and_end(file: str, *, is_uri: bool) -> None:
    if not is_uri:
        # SQLite would make it readable by others; its log has the same mode. What is wrong it tells itself.
        with contextlib.suppress(OSError):
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with contextlib.closing(sqlite3.connect(file, timeout=0, isolation_level=None, uri=is_uri)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
