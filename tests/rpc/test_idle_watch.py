"""When the wait for a silent client ends: after so long a silence, not after so long a time."""

from __future__ import annotations

import asyncio

import pytest

from ingest_service.rpc.upload_pace import IdleWatch
from tests.support.loop_clock import LoopClock

IDLE_SECONDS = 10.0


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> LoopClock:
    return LoopClock(monkeypatch)


class Waiting:
    """Somebody who waits for a client, in a task."""

    def __init__(self) -> None:
        self.watch: asyncio.Future[IdleWatch] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        async with asyncio.timeout(None) as deadline:
            with IdleWatch(deadline, IDLE_SECONDS) as idle:
                self.watch.set_result(idle)
                await asyncio.Event().wait()


async def test_silence_ends_the_wait(clock: LoopClock) -> None:
    waiting = Waiting()
    await waiting.watch
    await clock.advance(IDLE_SECONDS - 1)
    assert not waiting.task.done()
    await clock.advance(1)
    with pytest.raises(TimeoutError):
        await waiting.task


async def test_a_client_that_speaks_now_and_then_and_a_store_that_is_slow_are_no_silence(
    clock: LoopClock,
) -> None:
    waiting = Waiting()
    idle = await waiting.watch
    for _ in range(6):
        await clock.advance(IDLE_SECONDS - 1)
        idle.client_acts()
    idle.we_act()
    await clock.advance(10 * IDLE_SECONDS)
    assert not waiting.task.done()
    idle.client_acts()
    await clock.advance(IDLE_SECONDS)
    with pytest.raises(TimeoutError):
        await waiting.task


async def test_it_counts_from_the_last_message_though_its_timer_was_set_before(clock: LoopClock) -> None:
    waiting = Waiting()
    idle = await waiting.watch
    await clock.advance(IDLE_SECONDS - 1)
    idle.client_acts()
    await clock.advance(IDLE_SECONDS - 1)
    assert not waiting.task.done()
    await clock.advance(1)
    with pytest.raises(TimeoutError):
        await waiting.task


async def test_nothing_is_left_behind(clock: LoopClock) -> None:
    async with asyncio.timeout(None) as deadline:
        with IdleWatch(deadline, IDLE_SECONDS) as idle:
            pass
        await clock.advance(2 * IDLE_SECONDS)
    assert idle._timer.cancelled()
