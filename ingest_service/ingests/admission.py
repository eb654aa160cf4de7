"""Room before bytes: a file is accepted only if the store can hold all that was promised before, and it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from ingest_service.database import Transaction
from ingest_service.database.types import latest_believed
from ingest_service.ingests.limits import Limits
from ingest_service.storage import BlobStore
from ingest_service.vocabulary.errors import StorageFull


class Admission:
    """Reservations are not kept anywhere: they are the bytes that declared files still lack."""

    def __init__(self, store: BlobStore, limits: Limits, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock

    async def usable_bytes(self) -> int:
        """Free bytes above the floor that is always kept. Asked before the transaction that `check` is in."""
        return await self._store.free_bytes() - self._limits.free_floor_bytes

    def has_lapsed(self, progress_at: datetime) -> bool:
        """Room for a file whose first byte never came is no longer kept, or its time is not believed."""
        now = self._clock()
        return not self._oldest(now) <= progress_at <= latest_believed(now)

    async def check(self, tx: Transaction, needed_bytes: int, usable_bytes: int) -> None:
        """Raises StorageFull unless `needed_bytes` more can be promised; one decider at a time."""
        await tx.store.lock()
        now = self._clock()
        reserved = await tx.files.reserved_bytes(self._oldest(now), now)
        if needed_bytes > usable_bytes - reserved:
            raise StorageFull(
                f"The store can take {max(0, usable_bytes - reserved)} more bytes ({reserved} are promised to"
                f" other uploads); this file needs {needed_bytes}."
            )

    def _oldest(self, now: datetime) -> datetime:
        return now - timedelta(seconds=self._limits.reservation_seconds)
