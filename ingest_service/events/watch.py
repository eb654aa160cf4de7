"""Following one ingest: every event after a number, then live ones, until it is done."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass

from ingest_service.database import Database
from ingest_service.events.feed import Feed, View
from ingest_service.events.hub import Hub
from ingest_service.vocabulary.errors import (
    Draining,
    IngestNotFound,
    SequenceExpired,
    TooManyWatches,
    WatchRenewal,
)
from ingest_service.vocabulary.records import Event, Ingest

_HEARTBEAT_SECONDS = 15.0
#: A watch may end this much earlier than it has to: those that began together do not come back together.
_EARLIER = 0.1


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing happened for a while."""

    last_sequence: int


#: An event; the ingest as it is, for its progress; a sign of life.
WatchItem = Event | Ingest | Heartbeat


@dataclass(slots=True)
class _Shared:
    feed: Feed
    #: Takes the feed's flag out of the hub.
    stack: contextlib.ExitStack
    users: int = 0


class Watches:
    """All WatchIngest calls of this process."""

    def __init__(
        self, database: Database, hub: Hub, *, max_watches: int, watch_seconds: float = 3600.0
    ) -> None:
        self._database = database
        self._hub = hub
        self._max_watches = max_watches
        self._watch_seconds = watch_seconds
        self._feeds: dict[str, _Shared] = {}
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
        Draining; WatchRenewal when it has lasted long enough.
        """
        if self._active >= self._max_watches:
            raise TooManyWatches
        self._active += 1
        try:
            with self._feed(ingest_id) as feed:
                async with contextlib.aclosing(self._follow(feed, after_sequence)) as items:
                    async for item in items:
                        yield item
        finally:
            self._active -= 1

    @contextlib.contextmanager
    def _feed(self, ingest_id: str) -> Iterator[Feed]:
        """The ingest's one feed, from its first watcher to its last."""
        if ingest_id not in self._feeds:
            stack = contextlib.ExitStack()
            flag = stack.enter_context(self._hub.waiting_for(ingest_id))
            self._feeds[ingest_id] = _Shared(Feed(self._database, ingest_id, flag), stack)
        shared = self._feeds[ingest_id]
        shared.users += 1
        try:
            yield shared.feed
        finally:
            shared.users -= 1
            if not shared.users:
                del self._feeds[ingest_id]
                shared.stack.close()

    async def _follow(self, feed: Feed, cursor: int) -> AsyncGenerator[WatchItem, None]:
        loop = asyncio.get_running_loop()
        last_sign = loop.time()
        ends = last_sign + self._watch_seconds * random.uniform(1 - _EARLIER, 1)  # noqa: S311 (no secret)
        shown: object = None
        await self._begin(feed, cursor)
        while True:
            if self._draining:
                raise Draining
            view = await feed.fresh()
            is_behind = cursor < view.last_sequence
            if is_behind:
                for event in await _events(feed, view, cursor):
                    yield event
                    cursor = event.sequence
                    last_sign = loop.time()
            elif view.ingest.done:
                return
            elif view.progress != shown:
                shown = view.progress
                yield view.ingest
                last_sign = loop.time()
            elif loop.time() - last_sign >= _HEARTBEAT_SECONDS:
                yield Heartbeat(view.last_sequence)
                last_sign = loop.time()
            # Here, not above: every watch brings something, however long a read took.
            if loop.time() >= ends:
                raise WatchRenewal
            if not is_behind:
                await feed.wait(view)

    async def _begin(self, feed: Feed, cursor: int) -> None:
        view = await feed.fresh()
        if cursor > view.last_sequence:
            # A client that comes from another replica may know more than what we read last.
            view = await feed.read_again()
        if not 0 <= cursor <= view.last_sequence:
            raise SequenceExpired(
                f"The ingest's events are 1 to {view.last_sequence}.",
                metadata={"earliest": "1", "last": str(view.last_sequence)},
            )


async def _events(feed: Feed, view: View, cursor: int) -> Sequence[Event]:
    """The next events; at least one. Raises IngestNotFound."""
    at_hand = view.after(cursor)
    events = await feed.page(cursor, view.last_sequence) if at_hand is None else at_hand
    if not events:
        raise IngestNotFound
    return events
