"""Following one ingest: every event after a number, then live ones, until it is done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from ingest_service.database import Database, Transaction
from ingest_service.events.hub import Hub, wait_for_flag
from ingest_service.vocabulary.errors import Draining, IngestNotFound, SequenceExpired, TooManyWatches
from ingest_service.vocabulary.records import Event, Ingest

_PAGE = 256
_POLL_SECONDS = 1.0
_HEARTBEAT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing happened for a while."""

    last_sequence: int


#: An event; the ingest as it is, for its progress; a sign of life.
WatchItem = Event | Ingest | Heartbeat


class Watches:
    """All WatchIngest calls of this process."""

    def __init__(self, database: Database, hub: Hub, *, max_watches: int) -> None:
        self._database = database
        self._hub = hub
        self._max_watches = max_watches
        self._active = 0
        self._draining = False

    @property
    def active(self) -> int:
        """Watches that are running."""
        return self._active

    def drain(self) -> None:
        """Ends every watch with Draining; the clients watch again elsewhere."""
        self._draining = True
        self._hub.wake_everybody()

    async def watch(self, ingest_id: str, after_sequence: int) -> AsyncGenerator[WatchItem, None]:
        """Items in order; ends once the ingest is done and all its events were given.

        The reader's pace is the pace: rows are read when it wants more, nothing is queued for it. Who leaves
        early closes it (`contextlib.aclosing`). Raises IngestNotFound, SequenceExpired, TooManyWatches,
        Draining.
        """
        if self._active >= self._max_watches:
            raise TooManyWatches
        self._active += 1
        try:
            with self._hub.waiting_for(ingest_id) as flag:
                async with contextlib.aclosing(self._follow(ingest_id, after_sequence, flag)) as items:
                    async for item in items:
                        yield item
        finally:
            self._active -= 1

    async def _follow(
        self, ingest_id: str, cursor: int, flag: asyncio.Event
    ) -> AsyncGenerator[WatchItem, None]:
        loop = asyncio.get_running_loop()
        last_sign = loop.time()
        shown: object = None
        ingest = await self._first(ingest_id, cursor)
        while True:
            flag.clear()
            if self._draining:
                raise Draining
            events, ingest = await self._news(ingest_id, cursor)
            for event in events:
                yield event
                cursor = event.sequence
                last_sign = loop.time()
            if cursor < ingest.last_sequence:
                continue
            if ingest.done:
                return
            progress = _progress(ingest)
            if progress != shown:
                shown = progress
                yield ingest
                last_sign = loop.time()
            elif loop.time() - last_sign >= _HEARTBEAT_SECONDS:
                yield Heartbeat(ingest.last_sequence)
                last_sign = loop.time()
            await wait_for_flag(flag, _POLL_SECONDS)

    async def _first(self, ingest_id: str, cursor: int) -> Ingest:
        ingest = await self._database.read(lambda tx: tx.ingests.get(ingest_id))
        if ingest is None:
            raise IngestNotFound
        if not 0 <= cursor <= ingest.last_sequence:
            raise SequenceExpired(
                f"The ingest's events are 1 to {ingest.last_sequence}.",
                metadata={"earliest": "1", "last": str(ingest.last_sequence)},
            )
        return ingest

    async def _news(self, ingest_id: str, cursor: int) -> tuple[list[Event], Ingest]:
        async def work(tx: Transaction) -> tuple[list[Event], Ingest]:
            # The ingest first: the events read after it are then at least those that it counts.
            ingest = await tx.ingests.get(ingest_id)
            if ingest is None:
                raise IngestNotFound
            return await tx.events.after(ingest_id, cursor, _PAGE), ingest

        return await self._database.read(work)


def _progress(ingest: Ingest) -> object:
    """What a progress message would show: it is sent only when this changes."""
    return (
        [(file.id, file.committed_size) for file in ingest.files],
        [(d.id, d.state, d.progress_bytes, d.progress_total_bytes) for d in ingest.deployments],
    )
