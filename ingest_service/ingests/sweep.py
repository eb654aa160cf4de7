"""Gives up uploads that nobody goes on with, removes bytes that nobody refers to; one process at a time.

Unknown blobs are never removed here: the boot puts them into quarantine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ingest_service.database import Conflict, Database, Transaction
from ingest_service.ingests.blob_removal import remove_deleting
from ingest_service.ingests.recovery import Recovery
from ingest_service.lifecycle import Change
from ingest_service.storage import BlobStore
from ingest_service.vocabulary.errors import DatabaseDown, IngestError, WriterBusy
from ingest_service.vocabulary.records import Blob, File
from ingest_service.vocabulary.states import FILE_OPEN, BlobState

_log = logging.getLogger(__name__)
_LEASE = "sweep"
_PAGE = 100
#: A sweep that would remove more of the store than this is more likely wrong than right.
_BRAKE = 0.1
#: By a clock that is further from the database's nothing is judged to be old.
_MOST_SKEW_SECONDS = 60.0
_host_seconds = time.time


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """When a sweep comes, and what is old enough for it."""

    period_seconds: float = 60.0
    upload_expiry_seconds: float = 7 * 86400.0
    blob_grace_seconds: float = 86400.0


@dataclass(slots=True)
class SweepReport:
    """What a sweep did, or with a dry run would do."""

    expired_ingests: list[str] = field(default_factory=list)
    removed_blobs: list[str] = field(default_factory=list)
    removed_bytes: int = 0
    #: Bytes that each of them frees.
    sizes_bytes: dict[str, int] = field(default_factory=dict)
    #: Why nothing is given up or removed, or why no blob is: a wrong clock, the brake.
    stopped: str = ""


class Sweeper:
    """Runs from `start` to `stop`, or once."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        recovery: Recovery,
        settings: SweepSettings,
        *,
        owner: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._recovery = recovery
        self._settings = settings
        self._owner = owner
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """A sweep every period, from one period on."""
        self._task = asyncio.create_task(self._sweep_for_ever())

    async def stop(self) -> None:
        """Ends; whatever a sweep was at is whole or undone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def run(self, *, dry_run: bool = False, beyond_brake: bool = False) -> SweepReport | None:
        """One sweep; None if another process is at it."""
        if not await self._lease():
            return None
        report = SweepReport()
        try:
            if not dry_run:
                await self._recovery.of_the_dead()
                await self._recovery.remove_orphans()
            if not await self._lease() or await self._is_clock_wrong(report):
                return report
            await self._expire(report, dry_run=dry_run)
            await self._remove_blobs(report, dry_run=dry_run, beyond_brake=beyond_brake)
        finally:
            # Else a sweep by hand beside a running service, which sweeps again before its lease runs out,
            # would never get a turn. A process that died in its sweep keeps the lease until then.
            await self._release()
        return report

    async def _is_clock_wrong(self, report: SweepReport) -> bool:
        """Age is judged by this host's clock, and given up for it is what other hosts still work on."""
        skew_seconds = _host_seconds() - await self._database.read(lambda tx: tx.targets.now_us()) / 1e6
        if abs(skew_seconds) <= _MOST_SKEW_SECONDS:
            return False
        report.stopped = (
            f"this host's clock differs from the database's by {skew_seconds:.0f} s: set it right (NTP);"
            " until then nothing is given up or removed for its age"
        )
        _log.error("the sweep was stopped by a wrong clock", extra={"detail": report.stopped})
        return True

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.period_seconds)
            try:
                await self.run()
            except IngestError as error:
                # The database tells of its own outage, once.
                level = logging.DEBUG if isinstance(error, DatabaseDown) else logging.WARNING
                _log.log(level, "a sweep could not be finished", extra={"detail": error.message})
            except Exception:  # noqa: BLE001 (logged; the next sweep tries again)
                _log.exception("a sweep ended with an unforeseen fault")

    async def _lease(self) -> bool:
        seconds = max(self._settings.period_seconds * 2, 10.0)
        with contextlib.suppress(Conflict):
            return await self._database.transact(lambda tx: tx.store.take_lease(_LEASE, self._owner, seconds))
        return False

    async def _release(self) -> None:
        with contextlib.suppress(IngestError):
            await self._database.transact(lambda tx: tx.store.release_lease(_LEASE, self._owner))

    async def _expire(self, report: SweepReport, *, dry_run: bool) -> None:
        now = self._clock()
        before = now - timedelta(seconds=self._settings.upload_expiry_seconds)
        if not dry_run:
            await self._database.transact(lambda tx: tx.files.correct_times_ahead(now))
        stale = await self._database.read(lambda tx: tx.files.without_progress_since(before, _PAGE))
        for file in stale:
            if not dry_run and not await self._lease():
                return
            if dry_run or await self._expire_one(file, before):
                report.expired_ingests.append(file.ingest_id)
                report.sizes_bytes[file.ingest_id] = file.committed_size
                if not dry_run:
                    _log.info("expired an upload", extra={"ingest": file.ingest_id, "file": file.file_name})

    async def _expire_one(self, file: File, before: datetime) -> bool:
        try:
            partial = await self._store.open_partial(file.id)
        except WriterBusy:
            return False
        try:
            expired = await self._database.transact(lambda tx: self._give_up(tx, file.ingest_id, before))
            if expired and partial is not None:
                await partial.remove()
        finally:
            if partial is not None:
                await partial.close()
        return expired

    async def _give_up(self, tx: Transaction, ingest_id: str, before: datetime) -> bool:
        ingest = await tx.ingests.lock(ingest_id)
        if ingest is None or ingest.done:
            return False
        waiting = [file for file in ingest.files if file.state in FILE_OPEN]
        # Under the lock it may be found moving again, or even stored meanwhile.
        # Files mostly come one after the other: what is stored of the ingest counts as progress too.
        if not waiting or any(file.progress_at >= before for file in ingest.files):
            return False
        change = Change(ingest, self._clock())
        change.expire()
        await tx.ingests.save(ingest, change.after, change.events, change.now)
        return True

    async def _remove_blobs(self, report: SweepReport, *, dry_run: bool, beyond_brake: bool) -> None:
        now = self._clock()
        before = now - timedelta(seconds=self._settings.blob_grace_seconds)
        if not dry_run:
            await self._database.transact(lambda tx: tx.blobs.correct_times_ahead(now))
        unwanted = await self._database.read(lambda tx: tx.blobs.unreferenced(before))
        _, live_bytes = await self._database.read(lambda tx: tx.blobs.totals())
        # What is DELETING was asked for, by DeleteModel or by a sweep that the brake let through.
        asked_for = [blob for blob in unwanted if blob.state is BlobState.DELETING]
        found = [blob for blob in unwanted if blob.state is not BlobState.DELETING]
        wanted_gone = sum(blob.size_bytes for blob in found)
        if wanted_gone > live_bytes * _BRAKE and not beyond_brake:
            report.stopped = (
                f"{len(found)} blobs of {wanted_gone} bytes, more than a tenth of the store's"
                f" {live_bytes}, have no reference: look at it, then run `sweep --beyond-brake`"
            )
            _log.error("the sweep's brake stopped it", extra={"detail": report.stopped})
            found = []
        for blob in (*asked_for, *found):
            # A sweep may take longer than its lease: it goes on only while nobody else has begun one.
            if not dry_run and not await self._lease():
                return
            if dry_run or await self._remove_blob(blob):
                report.removed_blobs.append(blob.sha256)
                report.removed_bytes += blob.size_bytes
                report.sizes_bytes[blob.sha256] = blob.size_bytes

    async def _remove_blob(self, blob: Blob) -> bool:
        if not await self._database.transact(lambda tx: tx.blobs.mark_deleting(blob.sha256)):
            return False
        return await remove_deleting(self._database, self._store, blob.sha256)
