"""A SQLite file that other processes write too: a thread looks whether it changed, and whose events are new.

`PRAGMA data_version` costs microseconds and reads no page; only when it moved are the newest events asked
for. A thread of its own: on the event loop even a small wait for the file is one too many.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

_LOOK_SECONDS = 0.05
_BACKOFF_SECONDS = 1.0
_BUSY_SECONDS = 5.0

_NEWEST = "SELECT coalesce(max(rowid), 0) FROM events"
_NEWS = "SELECT ingest_id, max(rowid) FROM events WHERE rowid > ? GROUP BY ingest_id"
_log = logging.getLogger(__name__)


class SqliteHints:
    """See `hints.Hints`. Commits of this process are told as well: SQLite cannot tell them apart."""

    def __init__(self, engine: AsyncEngine, listener: Callable[[str | None], None]) -> None:
        arguments, options = engine.dialect.create_connect_args(engine.url)
        self._file: str = arguments[0]
        self._options: dict[str, Any] = {"uri": options.get("uri", False)}
        self._listener = listener
        self._stopping = threading.Event()
        self._ended = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._connected = False

    @property
    def is_connected(self) -> bool:
        return self._connected

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        # A daemon: a process that is given up must not wait for it.
        self._thread = threading.Thread(target=self._run, args=(loop,), name="sqlite-tail", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            await self._ended.wait()
            self._thread.join()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        def tell(ingest_id: str | None) -> None:
            loop.call_soon_threadsafe(self._listener, ingest_id)

        try:
            while not self._stopping.is_set():
                try:
                    self._follow(tell)
                except sqlite3.Error as error:
                    _log.warning("the database's file cannot be looked at; watchers poll", exc_info=error)
                self._connected = False
                self._stopping.wait(_BACKOFF_SECONDS)
        finally:
            # A loop that was closed without `stop` has nobody left to tell.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._ended.set)

    def _follow(self, tell: Callable[[str | None], None]) -> None:
        with contextlib.closing(
            sqlite3.connect(self._file, timeout=_BUSY_SECONDS, isolation_level=None, **self._options)
        ) as connection:
            connection.execute("PRAGMA query_only=ON")
            version = self._number(connection, "PRAGMA data_version")
            newest = self._number(connection, _NEWEST)
            self._connected = True
            tell(None)
            while not self._stopping.wait(_LOOK_SECONDS):
                now = self._number(connection, "PRAGMA data_version")
                if now != version:
                    # The version first: what is committed while we read is looked at again.
                    version = now
                    newest = self._news(connection, newest, tell)

    def _news(self, connection: sqlite3.Connection, newest: int, tell: Callable[[str | None], None]) -> int:
        rows: list[tuple[str, int]] = connection.execute(_NEWS, (newest,)).fetchall()
        for ingest_id, _ in rows:
            tell(ingest_id)
        if rows:
            return max(rowid for _, rowid in rows)
        last = self._number(connection, _NEWEST)
        if last < newest:
            # The newest rows were removed, and SQLite gives their numbers to others.
            tell(None)
        return last

    @staticmethod
    def _number(connection: sqlite3.Connection, query: str) -> int:
        # Fetched whole: an open statement would keep the log from being checkpointed.
        ((number,),) = connection.execute(query).fetchall()
        return int(number)
