"""The database: opens it, runs transactions, says in the house's own errors when it cannot.

Every transaction runs in a task of its own, shielded from its caller: a caller that is cancelled leaves a
transaction that still commits or rolls back whole, and never a half-used connection (peers.md section 4
number 25). Nothing but statements happens inside one, so it is short; `_TRANSACTION_SECONDS` bounds it.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ingest_service.database.connect import READING, WRITING, create_engine
from ingest_service.database.notify import announce
from ingest_service.database.transaction import Statements, Transaction
from ingest_service.database.unusable import LEAST_ROOM_BYTES, room_bytes
from ingest_service.telemetry.descriptors import SHORTAGE
from ingest_service.telemetry.outage import OutageLog
from ingest_service.vocabulary.errors import DatabaseDamaged, DatabaseDown, DatabaseFull

_T = TypeVar("_T")

#: Longer than SQLite's busy_timeout and PostgreSQL's lock_timeout, so that those speak first.
_TRANSACTION_SECONDS = 40.0
#: Deadlocks and serialisation failures are retried; our lock order makes them rare.
_RETRIES = 3
#: PostgreSQL's classes for connection, authentication, no such database, resources, operator, system.
_AWAY_CLASSES = ("08", "28", "3D", "53", "57", "58")
_UNIQUE_SQLSTATE = "23505"
_UNIQUE_SQLITE = frozenset({"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"})
_DAMAGED_SQLITE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_RETRYABLE_SQLSTATES = frozenset({"40001", "40P01"})
#: A lock was waited for too long; the server has become a read-only standby; retrying did not help.
_AWAY_SQLSTATES = _RETRYABLE_SQLSTATES | {"55P03", "25006"}


class Conflict(Exception):
    """A unique value is taken: somebody else committed it first."""


class Database:
    """Metadata, on SQLite or PostgreSQL. One per process."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        self._engine: AsyncEngine = create_engine(url, pool_size)
        dialect = self._engine.dialect.name
        self._reading, self._writing = READING[dialect], WRITING[dialect]
        # SQLite has one writer: waiting here is fair and cheap, waiting in its busy loop is neither. Readers
        # leave it a connection, or whoever has the turn to write would wait for all of them again.
        self._turn = {True: asyncio.Lock(), False: asyncio.Semaphore(max(1, pool_size - 1))}
        self._takes_turns = dialect == "sqlite"
        self._announces = dialect == "postgresql"
        #: Names this process in what PostgreSQL tells the others.
        self.origin = secrets.token_hex(6)
        self._running: set[asyncio.Task[object]] = set()
        self._outage = OutageLog("the database")
        self._listeners: list[Callable[[str], None]] = []

    @property
    def engine(self) -> AsyncEngine:
        """For migrations and tests."""
        return self._engine

    def on_event(self, listener: Callable[[str], None]) -> None:
        """`listener` is called with an ingest's id after each commit that gave it events."""
        self._listeners.append(listener)

    async def transact(self, work: Callable[[Transaction], Awaitable[_T]]) -> _T:
        """Runs `work` in one writing transaction and commits it.

        Raises what `work` raises (and rolls back); Conflict when a unique value is
        taken; DatabaseDown when the database cannot be reached or is
        locked for too long; DatabaseFull when its disk is full. `work` may run again after a deadlock, so it
        must have no effect but its statements.
        """
        return await self._in_own_task(work, writes=True)

    async def read(self, work: Callable[[Transaction], Awaitable[_T]]) -> _T:
        """Runs `work` in one reading transaction: a consistent snapshot, no lock. Raises as `transact`."""
        return await self._in_own_task(work, writes=False)

    async def prove_writable(self) -> None:
        """Writes one row as it is. Raises as `transact`; DatabaseFull also where only a little room is left.

        SQLite writes over its log again and again, so a small write can succeed on a disk that is full.
        """
        path = self._engine.url.database
        if self._takes_turns and path and await asyncio.to_thread(room_bytes, Path(path)) < LEAST_ROOM_BYTES:
            raise DatabaseFull
        await self.transact(lambda tx: tx.store.prove_writable())

    async def close(self) -> None:
        """Lets running transactions end, then closes every connection."""
        if self._running:
            await asyncio.wait(self._running, timeout=_TRANSACTION_SECONDS)
        await self._engine.dispose()

    async def _in_own_task(self, work: Callable[[Transaction], Awaitable[_T]], *, writes: bool) -> _T:
        task: asyncio.Task[_T] = asyncio.create_task(self._attempts(work, writes=writes))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # a caller that was cancelled will not ask for it

    async def _attempts(self, work: Callable[[Transaction], Awaitable[_T]], *, writes: bool) -> _T:
        kind = "writing" if writes else "reading"
        for attempt in range(_RETRIES + 1):
            try:
                async with asyncio.timeout(_TRANSACTION_SECONDS):
                    result = await self._once(work, writes=writes)
            except (exc.DBAPIError, exc.TimeoutError, OSError) as error:
                if _sqlstate(error) in _RETRYABLE_SQLSTATES and attempt < _RETRIES:
                    continue
                translated = _translate(error)
                if isinstance(translated, DatabaseDown):
                    SHORTAGE.note(error)
                    self._outage.failed(kind, _told(error, translated))
                raise translated from error
            self._outage.worked(kind)
            return result
        raise AssertionError("unreachable")

    async def _once(self, work: Callable[[Transaction], Awaitable[_T]], *, writes: bool) -> _T:
        async with AsyncExitStack() as stack:
            if self._takes_turns:
                await stack.enter_async_context(self._turn[writes])
            connection: AsyncConnection = await stack.enter_async_context(self._engine.connect())
            connection = await connection.execution_options(**(self._writing if writes else self._reading))
            async with connection.begin():
                statements = Statements(connection)
                result = await work(Transaction(statements))
                if statements.touched and self._announces:
                    await announce(statements, statements.touched, self.origin)
        for ingest_id in statements.touched:
            for listener in self._listeners:
                listener(ingest_id)
        return result


def _sqlstate(error: Exception) -> str | None:
    return getattr(getattr(error, "orig", None), "sqlstate", None)


def _told(error: Exception, translated: DatabaseDown) -> str:
    """For the log, without the statement and its values: those are a client's words."""
    inner: BaseException = getattr(error, "orig", None) or error
    cause = str(inner.__cause__ or inner) or type(inner).__name__
    return f"{translated.message} {type(inner.__cause__ or inner).__name__}: {cause}"


def _is_taken(error: exc.IntegrityError) -> bool:
    """A unique value, not a missing parent or an absent value: those are bugs of ours."""
    return _sqlstate(error) == _UNIQUE_SQLSTATE or (
        getattr(error.orig, "sqlite_errorname", None) in _UNIQUE_SQLITE
    )


def _translate(error: Exception) -> Exception:
    """The house's error for a database that is away or full; the error itself if it is a bug of ours."""
    if isinstance(error, exc.IntegrityError):
        return Conflict(str(error.orig)) if _is_taken(error) else error
    if isinstance(error, exc.DBAPIError):
        if _sqlstate(error) == "53100" or "database or disk is full" in str(error.orig):
            return DatabaseFull()
        if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _DAMAGED_SQLITE:
            return DatabaseDamaged()
        away = isinstance(error, exc.OperationalError | exc.InterfaceError) or error.connection_invalidated
        away = away or (_sqlstate(error) or "").startswith(_AWAY_CLASSES)
        away = away or _sqlstate(error) in _AWAY_SQLSTATES
        if not away and not isinstance(error.orig, OSError):
            return error
    return DatabaseDown()
