"""Readiness: writes to data directory and database again and again, and tells Health the result."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from ingest_service.database import Database
from ingest_service.storage import BlobStore
from ingest_service.vocabulary.errors import IngestError

_log = logging.getLogger(__name__)
_CHECK_SECONDS = 10.0


class SetServing(Protocol):
    """Tells Health."""

    def __call__(self, *, serving: bool) -> Awaitable[None]: ...


class Readiness:
    """Runs from `start` to `stop`; logs each change once."""

    def __init__(
        self, database: Database, store: BlobStore, set_serving: SetServing, *, period_seconds: float
    ) -> None:
        self._database = database
        self._store = store
        self._set_serving = set_serving
        self._period_seconds = period_seconds
        self._serving = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """The first check at once, then one every period."""
        await self._check()
        self._task = asyncio.create_task(self._check_for_ever())

    async def stop(self) -> None:
        """Ends, and says NOT_SERVING."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._set_serving(serving=False)

    async def _check_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._period_seconds)
            await self._check()

    async def _check(self) -> None:
        problem = await self._problem()
        serving = problem is None
        if serving != self._serving:
            if serving:
                _log.info("ready")
            else:
                _log.error("not ready", extra={"problem": problem})
            self._serving = serving
            await self._set_serving(serving=serving)

    async def _problem(self) -> str | None:
        return await _failure_of(
            self._store.probe, f"The data directory did not answer within {_CHECK_SECONDS:.0f} s."
        ) or await _failure_of(
            # A database can answer reads while it is locked, full or read-only.
            self._database.prove_writable,
            f"The database took no write within {_CHECK_SECONDS:.0f} s: it is locked, or too slow.",
        )


async def _failure_of(check: Callable[[], Awaitable[None]], too_slow: str) -> str | None:
    """Why the check fails; None if it does not."""
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await check()
    except IngestError as error:
        return error.message
    except TimeoutError:
        return too_slow
    except Exception as error:  # noqa: BLE001 (a check that ended here would leave the last word standing)
        return f"The check failed with an unforeseen {type(error).__name__}: {error}"
    return None
