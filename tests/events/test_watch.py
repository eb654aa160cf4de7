"""A watch gives every event after a number once and in order, then live ones, and ends with the ingest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ingest_service.database import Database
from ingest_service.events import Heartbeat, Hub, Watches
from ingest_service.vocabulary.errors import Draining, IngestNotFound, SequenceExpired, TooManyWatches
from ingest_service.vocabulary.records import Event, Ingest
from tests.events.conftest import History

pytestmark = pytest.mark.extended_when("postgresql")

BOUND_SECONDS = 30.0


async def test_a_finished_history_is_replayed_from_any_number(history: History) -> None:
    await history.tell(10)
    last = await history.end()
    for after in range(last + 1):
        assert await history.numbers(after) == list(range(after + 1, last + 1))


async def test_a_long_history_is_replayed_in_pages(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest_service.events.feed.PAGE", 7)
    await history.tell(100)
    last = await history.end()
    assert await history.numbers() == list(range(1, last + 1))


async def test_live_events_follow_the_replay_without_gap_or_repetition(history: History) -> None:
    await history.tell(5)
    watching = asyncio.create_task(history.numbers(3))
    for count in (1, 3, 1, 300):
        await history.tell(count)
    last = await history.end()
    async with asyncio.timeout(BOUND_SECONDS):
        assert await watching == list(range(4, last + 1))


async def test_news_wake_a_watcher_without_its_poll(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest_service.events.feed._POLL_SECONDS", 3600.0)
    async with history.watch() as watch, asyncio.timeout(BOUND_SECONDS):
        while not isinstance(await anext(watch), Ingest):
            pass
        asking = asyncio.ensure_future(anext(watch))
        last = await history.tell()
        event = await asking
        assert isinstance(event, Event)
        assert event.sequence == last


async def test_a_watcher_that_was_woken_once_does_not_go_on_asking(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest_service.events.feed._POLL_SECONDS", 3600.0)
    real = history.database.read
    asked = [0]

    async def read(work: Any) -> Any:
        asked[0] += 1
        return await real(work)

    monkeypatch.setattr(history.database, "read", read)
    watching = asyncio.create_task(history.numbers())
    await history.tell()
    await asyncio.sleep(0.3)
    assert asked[0] <= 5
    last = await history.end()
    async with asyncio.timeout(BOUND_SECONDS):
        assert await watching == list(range(1, last + 1))


async def test_two_hundred_watchers_each_see_every_number_once(history: History) -> None:
    await history.tell(2)
    watching = [asyncio.create_task(history.numbers(number % 3)) for number in range(200)]
    async with asyncio.timeout(BOUND_SECONDS):
        while history.watches.active < 200:
            await asyncio.sleep(0.01)
        for count in (1, 20, 1):
            await history.tell(count)
        last = await history.end()
        for number, task in enumerate(watching):
            assert await task == list(range(number % 3 + 1, last + 1))


@pytest.mark.usefixtures("quick")
async def test_events_written_elsewhere_are_seen_by_polling(history: History) -> None:
    elsewhere = Database(history.database.engine.url.render_as_string(hide_password=False))
    try:
        watches = Watches(elsewhere, Hub(), max_watches=1)
        watching = asyncio.create_task(history.numbers(watches=watches))
        await history.tell(3)
        await asyncio.sleep(0.1)
        await history.tell(3)
        last = await history.end()
        async with asyncio.timeout(BOUND_SECONDS):
            assert await watching == list(range(1, last + 1))
    finally:
        await elsewhere.close()


@pytest.mark.usefixtures("quick")
async def test_a_sign_of_life_comes_when_nothing_happens(history: History) -> None:
    last = await history.tell()
    async with history.watch(last) as watch, asyncio.timeout(BOUND_SECONDS):
        assert isinstance(await anext(watch), Ingest)
        assert await anext(watch) == Heartbeat(last)
        assert await anext(watch) == Heartbeat(last)


@pytest.mark.usefixtures("quick")
async def test_progress_is_shown_only_when_it_changed(history: History) -> None:
    last = (await history.ingests.get(history.ingest_id)).last_sequence
    file_id = (await history.ingests.get(history.ingest_id)).files[0].id

    async def commit(size_bytes: int) -> None:
        from sqlalchemy import update

        from ingest_service.database.tables import files

        async with history.database.engine.begin() as connection:
            await connection.execute(
                update(files).where(files.c.id == file_id).values(committed_size=size_bytes)
            )
        history.hub.wake(history.ingest_id)

    async with history.watch(last) as watch, asyncio.timeout(BOUND_SECONDS):
        first = await anext(watch)
        assert isinstance(first, Ingest)
        await commit(10)
        second = await anext(watch)
        assert isinstance(second, Ingest)
        assert second.files[0].committed_size == 10
        for _ in range(20):
            history.hub.wake(history.ingest_id)
            await asyncio.sleep(0.001)
        assert isinstance(await anext(watch), Heartbeat)


@pytest.mark.parametrize("after", [-1, 1000, 2**62])
async def test_a_number_that_the_history_does_not_have_is_refused(history: History, after: int) -> None:
    last = await history.tell()
    with pytest.raises(SequenceExpired) as refusal:
        await history.numbers(last + after if after > 0 else after)
    assert refusal.value.metadata == {"earliest": "1", "last": str(last)}


async def test_an_unknown_ingest_cannot_be_watched(history: History) -> None:
    with pytest.raises(IngestNotFound):
        await anext(history.watches.watch("0" * 24, 0))


async def test_one_watch_too_many_is_refused_and_an_ended_one_makes_room(history: History) -> None:
    watches = Watches(history.database, history.hub, max_watches=2)
    one, two = (watches.watch(history.ingest_id, 0) for _ in range(2))
    await anext(one)
    await anext(two)
    with pytest.raises(TooManyWatches):
        await anext(watches.watch(history.ingest_id, 0))
    await one.aclose()
    three = watches.watch(history.ingest_id, 0)
    await anext(three)
    await two.aclose()
    await three.aclose()
    assert watches.active == 0


async def test_draining_ends_every_watch_at_once_and_takes_no_more(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest_service.events.feed._POLL_SECONDS", 3600.0)
    watching = [asyncio.create_task(history.numbers()) for _ in range(5)]
    async with asyncio.timeout(BOUND_SECONDS):
        while history.watches.active < 5:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        history.watches.drain()
        for task in watching:
            with pytest.raises(Draining):
                await task
    with pytest.raises(Draining):
        await history.numbers()
