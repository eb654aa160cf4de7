"""Who reads when: one file at a time, shared by all who want it, never in the way of who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ingest_service.blobs import Outcome, Rehasher
from ingest_service.database import Database
from ingest_service.vocabulary.errors import Draining
from tests.blobs.parts import BOUND_SECONDS, LONG_AGO, Kept, Steered, outcome, until
from tests.support.files import gguf

DATA = gguf(300_000, seed=1)
OTHER = gguf(300_000, seed=2)
THIRD = gguf(300_000, seed=3)


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    """The database is not what these tests are about."""
    opened = Database(sqlite_url)
    yield opened
    await opened.close()


async def test_who_asks_for_the_same_digest_shares_one_reading(
    kept: Kept, rehasher: Rehasher, steered: Steered
) -> None:
    sha256 = await kept.put(DATA)
    steered.may_read.clear()
    async with rehasher.of(sha256) as stays:
        async with rehasher.of(sha256) as leaves:
            assert leaves is stays
            await until(lambda: len(steered.pieces) == 1)
        # Who leaves does not take the reading away from the other.
        steered.may_read.set()
        assert await stays.ended(BOUND_SECONDS)
        assert stays.outcome() is Outcome.SOUND
    assert len(steered.pieces) == -(-len(DATA) // (64 * 1024))


async def test_the_last_who_leaves_ends_the_reading(kept: Kept, rehasher: Rehasher, steered: Steered) -> None:
    sha256 = await kept.put(DATA)
    steered.may_read.clear()
    async with rehasher.of(sha256) as left:
        await until(lambda: len(steered.pieces) == 1)
    await until(lambda: steered.open_scans == 0)
    assert await left.ended(BOUND_SECONDS)
    assert (await kept.row(sha256)).verified_at == LONG_AGO
    # And who comes then gets one of his own.
    steered.may_read.set()
    assert await outcome(rehasher, sha256) is Outcome.SOUND


async def test_one_file_is_read_at_a_time(kept: Kept, rehasher: Rehasher, steered: Steered) -> None:
    digests = [await kept.put(data) for data in (DATA, OTHER, THIRD)]
    found = await asyncio.gather(*(outcome(rehasher, sha256) for sha256 in digests))
    assert found == [Outcome.SOUND] * 3
    assert steered.pieces == sorted(steered.pieces, key=digests.index)


async def test_a_reading_that_nobody_waits_for_gives_way(
    kept: Kept, rehasher: Rehasher, steered: Steered
) -> None:
    slow, urgent = await kept.put(DATA), await kept.put(OTHER)
    steered.may_read.clear()
    async with rehasher.of(slow, bytes_per_second=10**12) as scheduled:
        await until(lambda: steered.pieces == [slow])
        asked = asyncio.create_task(outcome(rehasher, urgent))
        await until(lambda: len(rehasher._readings) == 2)
        steered.may_read.set()
        assert await asked is Outcome.SOUND
        assert await scheduled.ended(BOUND_SECONDS)
        assert scheduled.outcome() is Outcome.SOUND
    # The piece that was begun, all of the urgent one, the rest.
    middle = steered.pieces[1:-4]
    assert steered.pieces == [slow, *middle, *[slow] * 4]
    assert set(middle) == {urgent}


async def test_a_rate_holds_back_and_who_is_in_a_hurry_lifts_it(
    kept: Kept, rehasher: Rehasher, steered: Steered
) -> None:
    """At one byte a second the first piece alone takes a day: that it ends at all is the proof."""
    sha256 = await kept.put(DATA)
    async with rehasher.of(sha256, bytes_per_second=1) as scheduled:
        await until(lambda: scheduled.read_bytes > 0)
        assert not await scheduled.ended(0.2)
        assert len(steered.pieces) == 1
        assert await outcome(rehasher, sha256) is Outcome.SOUND


async def test_the_rate_is_kept_over_the_whole_file(
    kept: Kept, rehasher: Rehasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At one byte a second, with pauses that are only asked for: they add up to a second for each byte."""
    sha256 = await kept.put(DATA)
    asked: list[float] = []

    async def noted(reading: object, seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr(Rehasher, "_pause", staticmethod(noted))
    assert await outcome(rehasher, sha256, bytes_per_second=1) is Outcome.SOUND
    assert len(DATA) - BOUND_SECONDS < asked[-1] <= len(DATA)


async def test_a_stop_ends_readings_as_draining(kept: Kept, rehasher: Rehasher, steered: Steered) -> None:
    sha256 = await kept.put(DATA)
    steered.may_read.clear()
    async with rehasher.of(sha256) as reading:
        await until(lambda: len(steered.pieces) == 1)
        await rehasher.close()
        assert await reading.ended()
        with pytest.raises(Draining):
            reading.outcome()
    with pytest.raises(Draining):
        async with rehasher.of(sha256):
            pass
