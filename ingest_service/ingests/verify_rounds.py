"""Reads all stored blobs again in the course of time, slowly; one process at a time.

What has been read is in the rows (`verified_at`): a restart goes on with the blob that was read longest ago,
and begins only the one that was being read anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ingest_service.blobs import Outcome, Rehasher
from ingest_service.database import Conflict, Database
from ingest_service.vocabulary.errors import DatabaseDown, IngestError, StorageFailed
from ingest_service.vocabulary.records import Blob

_log = logging.getLogger(__name__)
_LEASE = "verify"
_LEASE_SECONDS = 60.0
_RENEW_SECONDS = 15.0
_PAGE = 100
_LOOK_SECONDS = 600.0
#: A disk that fails for so many files fails for all of them: somebody has to look at it first.
_MOST_UNREADABLE = 10


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """How often each blob is read again, and how fast."""

    #: 0: never.
    age_seconds: float = 0.0
    #: 0: no limit.
    bytes_per_second: int = 50_000_000


@dataclass(slots=True)
class VerifyReport:
    """What one round did."""

    read_blobs: int = 0
    read_bytes: int = 0
    rotten: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


class VerifyRounds:
    """Runs from `start` to `stop`, or once."""

    def __init__(
        self,
        database: Database,
        rehasher: Rehasher,
        settings: VerifySettings,
        *,
        owner: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._rehasher = rehasher
        self._settings = settings
        self._owner = owner
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Rounds whenever something is due, if they are switched on."""
        if self._settings.age_seconds:
            self._task = asyncio.create_task(self._run_for_ever())

    async def stop(self) -> None:
        """Ends; the blob that is being read is begun anew next time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def run(self) -> VerifyReport | None:
        """Reads all that is due; None if another process is at it."""
        if not await self._lease():
            return None
        began = self._clock()
        report = VerifyReport()
        try:
            await self._read_due(report)
        finally:
            if report.read_blobs or report.unreadable:
                _log.info(
                    "stored blobs were read again",
                    extra={
                        "blobs": report.read_blobs,
                        "bytes": report.read_bytes,
                        "rotten": len(report.rotten),
                        "unreadable": len(report.unreadable),
                        "seconds": round((self._clock() - began).total_seconds(), 1),
                    },
                )
            with contextlib.suppress(IngestError):
                await self._database.transact(lambda tx: tx.store.release_lease(_LEASE, self._owner))
        return report

    async def _run_for_ever(self) -> None:
        period_seconds = min(_LOOK_SECONDS, max(1.0, self._settings.age_seconds / 10))
        while True:
            try:
                await self.run()
            except IngestError as error:
                # The database tells of its own outage, once.
                level = logging.DEBUG if isinstance(error, DatabaseDown) else logging.WARNING
                _log.log(level, "a round of verifying could not be finished", extra={"detail": error.message})
            except Exception:  # noqa: BLE001 (logged; the next round tries again)
                _log.exception("a round of verifying ended with an unforeseen fault")
            await asyncio.sleep(period_seconds)

    async def _read_due(self, report: VerifyReport) -> None:
        now = self._clock()
        before = now - timedelta(seconds=self._settings.age_seconds)
        # What could not be read, or was replaced again and again, stays due: not twice in one round.
        tried: set[str] = set()
        while True:
            limit = _PAGE + len(tried)
            due = await self._database.read(
                lambda tx: tx.blobs.not_verified_since(before, now, limit)  # noqa: B023 (awaited here)
            )
            fresh = [blob for blob in due if blob.sha256 not in tried]
            if not fresh:
                return
            for blob in fresh:
                tried.add(blob.sha256)
                if len(report.unreadable) >= _MOST_UNREADABLE or not await self._read(blob, report):
                    return

    async def _read(self, blob: Blob, report: VerifyReport) -> bool:
        """False once another process has the lease."""
        rate = self._settings.bytes_per_second
        async with self._rehasher.of(blob.sha256, bytes_per_second=rate) as reading:
            while True:
                # A reading may take hours: the lease is renewed beside it.
                if not await self._lease():
                    return False
                if await reading.ended(_RENEW_SECONDS):
                    break
        try:
            outcome = reading.outcome()
        except StorageFailed:
            report.unreadable.append(blob.sha256)
            return True
        report.read_blobs += 1
        report.read_bytes += reading.read_bytes
        if outcome is Outcome.CORRUPT:
            report.rotten.append(blob.sha256)
        return True

    async def _lease(self) -> bool:
        with contextlib.suppress(Conflict):
            return await self._database.transact(
                lambda tx: tx.store.take_lease(_LEASE, self._owner, _LEASE_SECONDS)
            )
        return False
