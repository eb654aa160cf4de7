"""When the wait for a silent client ends: after so long a silence, not after so long a time."""

from __future__ import annotations

import asyncio

import pytest

from ingest_service.rpc.upload_pace import IdleWatch


async def silence(idle_seconds: float, after_seconds: float = 0.0) -> None:
    async with asyncio.timeout(None) as deadline:
        with IdleWatch(deadline, idle_seconds) as idle:
            await asyncio.sleep(after_seconds)
            idle.client_acts()
            await asyncio.sleep(30)


async def test_silence_ends_the_wait() -> None:
    with pytest.raises(TimeoutError):
        await silence(0.05)


async def test_a_client_that_speaks_now_and_then_and_a_store_that_is_slow_are_no_silence() -> None:
    async with asyncio.timeout(None) as deadline:
        with IdleWatch(deadline, 0.3) as idle:
            for _ in range(6):
                await asyncio.sleep(0.1)
                idle.client_acts()
            idle.we_act()
            await asyncio.sleep(0.7)
            idle.client_acts()
    assert not deadline.expired()


async def test_it_counts_from_the_last_message_though_its_timer_was_set_before() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        await silence(0.2, after_seconds=0.15)
    assert loop.time() - began >= 0.35


async def test_nothing_is_left_behind() -> None:
    async with asyncio.timeout(None) as deadline:
        with IdleWatch(deadline, 0.01) as idle:
            pass
        await asyncio.sleep(0.05)
    assert idle._timer.cancelled()
    assert not deadline.expired()
