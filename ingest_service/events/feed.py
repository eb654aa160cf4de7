"""One ingest's news, read once for all who watch it in this process."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ingest_service.database import Database, Transaction
from ingest_service.events.hub import wait_for_flag
from ingest_service.vocabulary.errors import IngestNotFound
from ingest_service.vocabulary.records import Event, Ingest

#: Events of one read, and the most that are kept for those who are a little behind.
PAGE = 256
#: What no hint tells (progress on other replicas, a hint that was lost) is seen after this long.
_POLL_SECONDS = 1.0
#: Events are kept this long after the last one came: who is busy sending needs no read of their own.
_KEEP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class View:
    """What one read found: the ingest, and its last events as far as they are kept."""

    ingest: Ingest
    events: tuple[Event, ...]
    #: What a progress message would show: it is sent only when this changes.
    progress: object

    @property
    def last_sequence(self) -> int:
        """The number of the last event."""
        return self.ingest.last_sequence

    def after(self, cursor: int) -> tuple[Event, ...] | None:
        """All events with a higher number; None if they are not all here."""
        behind = self.last_sequence - cursor
        if behind > len(self.events):
            return None
        return self.events[len(self.events) - behind :] if behind > 0 else ()


class Feed:
    """Reads when somebody wants news and there may be some; everybody who wants them then shares the read.

    Nothing runs here by itself and nothing is queued: watchers that do not read cause no reads, and are no
    more to this than a cursor of their own.
    """

    def __init__(self, database: Database, ingest_id: str, flag: asyncio.Event) -> None:
        self._database = database
        self._ingest_id = ingest_id
        #: Set by the hub when there may be news; taken down when a read begins.
        self._flag = flag
        self._view: View | None = None
        self._read_at = self._news_at = 0.0
        self._reading: asyncio.Task[View] | None = None

    async def fresh(self) -> View:
        """The view, read again if there may be news. Raises IngestNotFound, BackendDown."""
        reading = self._reading
        if reading is None or reading.done():
            if self._view is not None and not self._is_due():
                return self._view
            # Before the read: a hint that comes while it runs leads to the next one.
            self._flag.clear()
            reading = self._reading = asyncio.create_task(self._read())
            reading.add_done_callback(_heard)
        # A watcher that leaves does not take the read away from the others.
        return await asyncio.shield(reading)

    async def read_again(self) -> View:
        """A view whose read began after this call. Raises as `fresh`."""
        self._flag.set()
        if self._reading is not None:
            await asyncio.wait({self._reading})  # done or not: that one may have begun before
        return await self.fresh()

    async def wait(self, seen: View) -> None:
        """Returns when there may be something else than `seen`, or it is time to look."""
        is_reading = self._reading is not None and not self._reading.done()
        if self._view is seen and not is_reading and not self._is_due():
            loop = asyncio.get_running_loop()
            await wait_for_flag(self._flag, self._read_at + _POLL_SECONDS - loop.time())

    async def page(self, cursor: int, last_sequence: int) -> list[Event]:
        """Events after `cursor`, for one who is further behind than the view goes; none after the last."""
        events = await self._database.read(lambda tx: tx.events.after(self._ingest_id, cursor, PAGE))
        return [event for event in events if event.sequence <= last_sequence]

    def _is_due(self) -> bool:
        return self._flag.is_set() or asyncio.get_running_loop().time() - self._read_at >= _POLL_SECONDS

    async def _read(self) -> View:
        loop = asyncio.get_running_loop()
        began = loop.time()
        before = self._view
        known = before.last_sequence if before is not None else 0

        async def work(tx: Transaction) -> tuple[Ingest, list[Event]]:
            ingest = await tx.ingests.get(self._ingest_id)
            if ingest is None:
                raise IngestNotFound
            if ingest.last_sequence <= known:
                return ingest, []
            after = max(known, ingest.last_sequence - PAGE)
            return ingest, await tx.events.after(self._ingest_id, after, PAGE)

        ingest, news = await self._database.read(work)
        self._read_at = began
        if news:
            self._news_at = began
        kept = before.events if before is not None and began - self._news_at < _KEEP_SECONDS else ()
        if before is None or news or ingest != before.ingest or kept != before.events:
            self._view = View(ingest, _joined(kept, news), _progress(ingest))
        assert self._view is not None
        return self._view


def _heard(task: asyncio.Task[View]) -> None:
    if not task.cancelled():
        task.exception()  # nobody may be left to be told


def _joined(kept: tuple[Event, ...], news: list[Event]) -> tuple[Event, ...]:
    """The newest events, without a gap: news that leave any out are a whole page, so nothing is kept."""
    return (*kept, *news)[-PAGE:]


def _progress(ingest: Ingest) -> object:
    return (
        [(file.id, file.committed_size) for file in ingest.files],
        [(d.id, d.state, d.progress_bytes, d.progress_total_bytes) for d in ingest.deployments],
    )
