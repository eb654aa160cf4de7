"""Many watchers of one ingest: one read serves them all, and those that do not read cost nothing."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import grpc
import pytest
from model_ingest.v1.ingest_service_pb2 import CancelIngestRequest, WatchIngestRequest

from ingest_service.events import Hub, Watches
from ingest_service.vocabulary.errors import BackendDown, SequenceExpired
from ingest_service.vocabulary.records import Event, Ingest, NewEvent
from tests.conftest import StartService
from tests.events.conftest import History
from tests.support.files import create_request
from tests.support.service import RunningService
from tests.support.stubs import ingest_stub

pytestmark = pytest.mark.extended_when("postgresql")

BOUND_SECONDS = 100.0


class Reads:
    """Counts a database's reading transactions; may refuse them."""

    def __init__(self, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.away = False
        real = history.database.read

        async def read(work: Any) -> Any:
            self.count += 1
            if self.away:
                raise BackendDown
            return await real(work)

        monkeypatch.setattr(history.database, "read", read)


class Crowd:
    """Watchers of one history; each keeps the numbers that it saw."""

    def __init__(self, history: History, size: int, watches: Watches | None = None) -> None:
        self.seen: list[list[int]] = [[] for _ in range(size)]
        watches = watches or history.watches
        self.tasks = [asyncio.create_task(self._follow(history, watches, numbers)) for numbers in self.seen]

    async def _follow(self, history: History, watches: Watches, numbers: list[int]) -> None:
        async for item in watches.watch(history.ingest_id, 0):
            if isinstance(item, Event):
                numbers.append(item.sequence)  # noqa: PERF401 (read while it grows)

    async def at(self, last: int) -> None:
        async with asyncio.timeout(BOUND_SECONDS):
            while not all(numbers and numbers[-1] == last for numbers in self.seen):
                await asyncio.sleep(0.01)

    async def ended(self, last: int) -> None:
        async with asyncio.timeout(BOUND_SECONDS):
            await asyncio.gather(*self.tasks)
        assert all(numbers == list(range(1, last + 1)) for numbers in self.seen)


@pytest.fixture
def never_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest_service.events.feed._POLL_SECONDS", 3600.0)


@pytest.mark.usefixtures("never_polls")
async def test_a_change_is_read_once_for_all_who_watch(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = Crowd(history, 200)
    await crowd.at(await history.tell(3))
    reads = Reads(history, monkeypatch)
    for count in (1, 20, 1):
        before = reads.count
        await crowd.at(await history.tell(count))
        assert reads.count - before == 1
    await crowd.ended(await history.end())


async def test_polls_are_shared_too(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest_service.events.feed._POLL_SECONDS", 0.1)
    crowd = Crowd(history, 200)
    await crowd.at(await history.tell())
    reads = Reads(history, monkeypatch)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.sleep(1.0)
    # One for each poll's time that went by, however long that was; each of their own would be 200 times that.
    assert 1 <= reads.count <= (loop.time() - began) / 0.1 + 2
    await crowd.ended(await history.end())


@pytest.mark.usefixtures("never_polls")
async def test_who_is_a_little_behind_shares_what_was_read(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with history.watch() as slow, history.watch() as quick:
        for watch in (slow, quick):
            while not isinstance(await anext(watch), Ingest):
                pass
        reads = Reads(history, monkeypatch)
        for _ in range(5):
            last = await history.tell(20)
            item = await anext(quick)
            while not isinstance(item, Event) or item.sequence < last:
                item = await anext(quick)
        assert reads.count == 5
        numbers = [(await anext(slow)) for _ in range(100)]
        assert [event.sequence for event in numbers if isinstance(event, Event)] == list(
            range(last - 99, last + 1)
        )
        assert reads.count == 5


async def test_who_is_far_behind_reads_pages_of_their_own(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest_service.events.feed.PAGE", 10)
    async with history.watch() as slow:
        first = await anext(slow)
        assert isinstance(first, Event)
        crowd = Crowd(history, 5)
        for _ in range(10):
            await history.tell(25)
        last = await history.end()
        await crowd.ended(last)
        rest = [item.sequence async for item in slow if isinstance(item, Event)]
        assert [first.sequence, *rest] == list(range(1, last + 1))


async def test_events_are_kept_for_a_while_only(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest_service.events.feed._POLL_SECONDS", 0.02)
    monkeypatch.setattr("ingest_service.events.feed._KEEP_SECONDS", 0.1)
    # What the tests before have left alive is not looked through again and again.
    gc.freeze()
    crowd = Crowd(history, 3)
    await crowd.at(await history.tell(100))

    def held() -> int:
        gc.collect()
        return sum(isinstance(thing, Event) for thing in gc.get_objects())

    async with asyncio.timeout(BOUND_SECONDS):
        # One each may still be named by a watcher's own frame.
        while held() > 3:
            await asyncio.sleep(0.1)
    gc.unfreeze()
    await crowd.ended(await history.end())


async def test_a_number_known_from_another_replica_is_believed_once_it_is_read(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest_service.events.feed._POLL_SECONDS", 3600.0)
    # No hint reaches this hub: its view is old until somebody asks for more.
    watches = Watches(history.database, Hub(), max_watches=10)
    early = watches.watch(history.ingest_id, 0)
    assert isinstance(await anext(early), Event)
    last = await history.tell(5)
    late = watches.watch(history.ingest_id, last - 1)
    item = await anext(late)
    assert isinstance(item, Event)
    assert item.sequence == last
    with pytest.raises(SequenceExpired):
        await anext(watches.watch(history.ingest_id, last + 1))
    await early.aclose()
    await late.aclose()


async def test_a_failed_read_ends_those_who_wanted_it_and_the_next_one_works(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with history.watch() as later:
        # It wants nothing while the database is away, and so hears nothing of it.
        assert isinstance(await anext(later), Event)
        last = await history.tell()
        crowd = Crowd(history, 20)
        await crowd.at(last)
        reads = Reads(history, monkeypatch)
        reads.away = True
        history.hub.wake(history.ingest_id)
        async with asyncio.timeout(BOUND_SECONDS):
            ends = await asyncio.gather(*crowd.tasks, return_exceptions=True)
        assert all(isinstance(end, BackendDown) for end in ends)
        reads.away = False
        again = Crowd(history, 20)
        last = await history.end()
        await again.ended(last)
        rest = [item.sequence async for item in later if isinstance(item, Event)]
        assert rest == list(range(2, last + 1))


@pytest.mark.usefixtures("never_polls")
async def test_one_that_leaves_in_the_middle_of_a_read_takes_nothing_from_the_others(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = Crowd(history, 10)
    await crowd.at(await history.tell())
    real = history.database.read
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def read(work: Any) -> Any:
        inside.set()
        await go_on.wait()
        return await real(work)

    monkeypatch.setattr(history.database, "read", read)
    last = await history.tell()
    await inside.wait()
    leaver, crowd.tasks = crowd.tasks[0], crowd.tasks[1:]
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    crowd.seen = crowd.seen[1:]
    go_on.set()
    await crowd.at(last)
    await crowd.ended(await history.end())


@pytest.mark.extended
@pytest.mark.extended_when("postgresql")
async def test_a_thousand_watchers_of_which_a_hundred_do_not_read(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    watches = Watches(history.database, history.hub, max_watches=1000)
    idle = [watches.watch(history.ingest_id, 0) for _ in range(100)]
    for watch in idle:
        assert isinstance(await anext(watch), Event)
    crowd = Crowd(history, 900, watches)
    for count in (1, 30, 300):
        await crowd.at(await history.tell(count))
    assert watches.active == 1000
    reads = Reads(history, monkeypatch)
    last = await history.end()
    await crowd.ended(last)
    assert reads.count < 100
    for watch in idle:
        # What was told long ago is read now, at its own pace.
        assert [item.sequence async for item in watch if isinstance(item, Event)] == list(range(2, last + 1))
    assert watches.active == 0


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_thousand_calls_of_which_a_hundred_do_not_read(start_service: StartService) -> None:
    service: RunningService = await start_service()
    ingest = await service.ingests.CreateIngest(create_request(1000))
    # Windows that do not grow: those that do not read stand still after 64 KiB of the 200 that are told.
    narrow = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536)]
    channels = [service.channel(narrow) for _ in range(20)]
    stubs = [ingest_stub(channel) for channel in channels]
    calls = [stubs[n % 20].WatchIngest(WatchIngestRequest(name=ingest.name)) for n in range(1000)]
    for call in calls:
        # Begun, one message read; the last hundred read no more than this.
        await call.read()
    assert service.service.watches.active == 1000

    async def to_the_end(call: Any) -> list[int]:
        seen = [1]
        while (item := await call.read()) is not grpc.aio.EOF:
            if item.HasField("event"):
                seen.append(item.event.sequence)
        return seen

    reading = [asyncio.create_task(to_the_end(call)) for call in calls[:900]]

    async def long_news(tx: Any) -> int:
        before = await tx.ingests.lock(ingest.name.removeprefix("ingests/"))
        news = [NewEvent("notice", {"message": "x" * 1000}) for _ in range(40)]
        return int((await tx.ingests.save(before, before, news, before.updated_at)).last_sequence)

    for _ in range(5):
        await service.service.database.transact(long_news)
        await asyncio.sleep(1)
    ended = await service.ingests.CancelIngest(CancelIngestRequest(name=ingest.name))
    expected = list(range(1, ended.last_sequence + 1))
    assert all(seen == expected for seen in await asyncio.gather(*reading))
    assert service.service.watches.active == 100
    late = await asyncio.gather(*(to_the_end(call) for call in calls[900:]))
    assert all(seen == expected for seen in late)
    for channel in channels:
        await channel.close()
