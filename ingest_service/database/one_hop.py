"""aiosqlite with one trip to its thread for a statement.

Through aiosqlite's own cursor SQLAlchemy makes four: to make it, to execute, to fetch the rows, to close it.
Each costs two wake-ups and a turn of the loop, and it was those trips that a call beside busy uploads waited
for: half of a transaction's CPU, and most of its time (docs/performance-loop.md). BEGIN goes with the first
statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import aiosqlite


class OneHopCursor:
    """What SQLAlchemy asks of a driver's cursor. Its rows are here once `execute` has returned."""

    def __init__(self, connection: OneHopConnection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Self:
        """Runs one statement and fetches its rows."""
        if sql.startswith("BEGIN "):
            self._connection.begin_with_next(sql)
            return self
        return await self._run(lambda cursor: cursor.execute(sql, parameters))

    async def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> Self:
        """Runs one statement for each set of parameters."""
        return await self._run(lambda cursor: cursor.executemany(sql, parameters))

    async def fetchall(self) -> list[Any]:
        """The rows, once."""
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Does nothing: SQLite's own cursor was closed in the trip that made it."""

    async def _run(self, call: Callable[[sqlite3.Cursor], Any]) -> Self:
        def run(connection: sqlite3.Connection) -> None:
            cursor = connection.cursor()
            try:
                call(cursor)
                self._rows = cursor.fetchall() if cursor.description else []
                self.description = cursor.description
                self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid
            finally:
                cursor.close()

        await self._connection.in_its_thread(run)
        return self


class OneHopConnection(aiosqlite.Connection):
    """aiosqlite's connection with another cursor."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
        # Other threads: aiosqlite's own, and SQLAlchemy reads a property now and then.
        super().__init__(lambda: sqlite3.connect(path, timeout=timeout_seconds, check_same_thread=False), 64)
        self._begin: str | None = None
        # A process that is to end does not wait for it; SQLAlchemy does the same where it makes one.
        self._thread.daemon = True

    def cursor(self) -> OneHopCursor:  # type: ignore[override]
        """Costs nothing until it is used."""
        return OneHopCursor(self)

    def begin_with_next(self, sql: str) -> None:
        """The next statement runs this before itself; what goes wrong with it is told by that one."""
        self._begin = sql

    async def in_its_thread(self, call: Callable[[sqlite3.Connection], None]) -> None:
        """Runs `call` on SQLite's own connection."""
        begin, self._begin = self._begin, None

        def run(connection: sqlite3.Connection) -> None:
            if begin is not None:
                connection.execute(begin).close()
            call(connection)

        await self._execute(run, self._conn)  # type: ignore[no-untyped-call]

    async def commit(self) -> None:
        """Ends the transaction, if need be by rolling it back; one without a statement was never begun."""
        begin, self._begin = self._begin, None
        if begin is None:
            await self.in_its_thread(_commit)

    async def rollback(self) -> None:
        """As `commit`."""
        begin, self._begin = self._begin, None
        if begin is None:
            await super().rollback()


def _commit(connection: sqlite3.Connection) -> None:
    try:
        connection.commit()
    except BaseException:
        # Some failures leave it open, and nobody rolls back when the connection goes back to the pool.
        connection.rollback()
        raise
