"""LISTEN and NOTIFY: PostgreSQL tells every replica at once which ingests a commit touched.

Sent inside the transaction, so it arrives with the commit or not at all, and once per ingest however many
events there were. PostgreSQL commits transactions that notify one after the other (one lock for the whole
server, held while the commit is synced); `benchmarks/watch_latency.py` measures what that costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingest_service.database.connect import listening_arguments
from ingest_service.database.statements import Statements

CHANNEL = "model_ingest"

_CONNECT_SECONDS = 10.0
#: A peer that vanished without a word (a pulled cable, a failover) is noticed after the two together.
_PING_SECONDS = 5.0
_PING_TIMEOUT_SECONDS = 5.0
_FIRST_BACKOFF_SECONDS = 0.1
_MOST_BACKOFF_SECONDS = 3.0

_NOTIFY = text("SELECT pg_notify(:channel, payload) FROM unnest(CAST(:payloads AS text[])) AS payload")
_log = logging.getLogger(__name__)


async def announce(statements: Statements, ingest_ids: Iterable[str], origin: str) -> None:
    """Tells all who listen, when the transaction commits. `origin` names who need not hear it."""
    # In order, so that two transactions are never told apart by a set's whim.
    payloads = [f"{ingest_id}:{origin}" for ingest_id in sorted(ingest_ids)]
    await statements.run(_NOTIFY.bindparams(channel=CHANNEL, payloads=payloads))


class PostgresHints:
    """One connection of our own that listens, for ever; see `hints.Hints`."""

    def __init__(self, engine: AsyncEngine, origin: str, listener: Callable[[str | None], None]) -> None:
        self._arguments = listening_arguments(engine)
        self._origin = origin
        self._listener = listener
        self._connected = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_connected(self) -> bool:
        return self._connected

    def start(self) -> None:
        self._task = asyncio.create_task(self._listen_for_ever())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _listen_for_ever(self) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 (whatever it was, the next connection may work)
                if self._connected or not failures:
                    detail = f"{type(error).__name__}: {error}"
                    _log.warning(
                        "commits of other replicas are not heard; watchers poll", extra={"detail": detail}
                    )
            self._connected = False
            # One that broke at once is no success: a server that takes and drops us is not hammered.
            failures = 0 if loop.time() - began > _PING_SECONDS else failures + 1
            longest = min(_MOST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 10))
            await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 (no secret)

    async def _listen(self) -> None:
        """One connection, from its beginning to its loss."""
        async with asyncio.timeout(_CONNECT_SECONDS):
            connection = await asyncpg.connect(**self._arguments)
        try:
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            async with asyncio.timeout(_CONNECT_SECONDS):
                await connection.add_listener(CHANNEL, self._heard)
            self._connected = True
            _log.info("listening for commits of other replicas")
            # After LISTEN, not before: what was missed until now is found by reading.
            self._listener(None)
            await self._until_lost(connection, lost)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await connection.close(timeout=1)
            raise
        finally:
            connection.terminate()

    async def _until_lost(self, connection: Any, lost: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PING_SECONDS):
                    await lost.wait()
            if lost.is_set():
                raise ConnectionError("the connection that listens was lost")
            await connection.execute("SELECT 1", timeout=_PING_TIMEOUT_SECONDS)

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        ingest_id, _, origin = payload.partition(":")
        # Our own commits woke our own at once; their echo would have everything read twice.
        if origin != self._origin:
            self._listener(ingest_id)
