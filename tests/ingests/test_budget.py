"""The process's budget of bytes: never exceeded, first come first served, nothing lost by a cancel."""

from __future__ import annotations

import asyncio
import random

import pytest

from ingest_service.ingests.budget import ByteBudget


async def take(budget: ByteBudget, size_bytes: int) -> None:
    turn = budget.ask(size_bytes)
    try:
        await turn
    except asyncio.CancelledError:
        budget.withdraw(size_bytes, turn)
        raise


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_free_is_taken_at_once() -> None:
    budget = ByteBudget(10)
    await take(budget, 4)
    await take(budget, 6)
    assert budget.held_bytes == 10
    budget.give_back(4)
    assert budget.held_bytes == 6


async def test_who_asks_for_more_than_is_left_waits_for_exactly_enough() -> None:
    budget = ByteBudget(10)
    await take(budget, 8)
    waiting = asyncio.create_task(take(budget, 5))
    await settle()
    budget.give_back(2)
    await settle()
    assert not waiting.done()
    budget.give_back(1)
    await waiting
    assert budget.held_bytes == 10


async def test_the_first_to_ask_is_the_first_to_get_even_if_a_later_one_wants_less() -> None:
    budget = ByteBudget(10)
    await take(budget, 10)
    order: list[int] = []

    async def taker(size_bytes: int) -> None:
        await take(budget, size_bytes)
        order.append(size_bytes)

    tasks = [asyncio.create_task(taker(size_bytes)) for size_bytes in (9, 1, 2)]
    await settle()
    budget.give_back(2)
    await settle()
    assert order == []
    budget.give_back(7)
    await settle()
    assert order == [9]
    budget.give_back(3)
    await asyncio.gather(*tasks)
    assert order == [9, 1, 2]


async def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    budget = ByteBudget(10)
    await take(budget, 5)
    waiting = asyncio.create_task(take(budget, 6))
    await settle()
    newcomer = asyncio.create_task(take(budget, 1))
    await settle()
    assert not newcomer.done()
    budget.give_back(5)
    await asyncio.gather(waiting, newcomer)
    assert budget.held_bytes == 7


async def test_a_waiter_who_is_cancelled_holds_nothing_and_nobody_up() -> None:
    budget = ByteBudget(10)
    await take(budget, 8)
    big = asyncio.create_task(take(budget, 10))
    small = asyncio.create_task(take(budget, 2))
    await settle()
    big.cancel()
    await small
    assert budget.held_bytes == 10
    with pytest.raises(asyncio.CancelledError):
        await big
    budget.give_back(10)
    assert budget.held_bytes == 0


async def test_a_waiter_who_is_cancelled_when_it_was_just_granted_gives_it_back() -> None:
    budget = ByteBudget(10)
    await take(budget, 10)
    waiting = asyncio.create_task(take(budget, 10))
    await settle()
    budget.give_back(10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert budget.held_bytes == 0


async def test_more_than_everything_counts_as_everything() -> None:
    budget = ByteBudget(10)
    await take(budget, 25)
    assert budget.held_bytes == 10
    waiting = asyncio.create_task(take(budget, 25))
    await settle()
    assert not waiting.done()
    budget.give_back(25)
    await waiting
    budget.give_back(25)
    assert budget.held_bytes == 0


async def test_an_ask_is_withdrawn_granted_or_not() -> None:
    budget = ByteBudget(10)
    granted = budget.ask(7)
    assert granted.done()
    waiting, behind = budget.ask(7), budget.ask(3)
    assert not waiting.done()
    budget.withdraw(7, waiting)
    assert behind.done()
    budget.withdraw(7, granted)
    assert budget.held_bytes == 3
    budget.give_back(3)


async def test_under_random_takes_and_cancels_the_capacity_holds_and_all_comes_back() -> None:
    source = random.Random(7)
    budget = ByteBudget(100)
    held = most = 0

    async def taker() -> None:
        nonlocal held, most
        size_bytes = source.randint(1, 60)
        await take(budget, size_bytes)
        held += size_bytes
        most = max(most, held)
        try:
            for _ in range(source.randint(0, 5)):
                await asyncio.sleep(0)
        finally:
            held -= size_bytes
            budget.give_back(size_bytes)

    tasks = [asyncio.create_task(taker()) for _ in range(300)]
    while not all(task.done() for task in tasks):
        source.choice(tasks).cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert 60 < most <= 100
    assert budget.held_bytes == 0


async def test_nothing_is_taken_at_once_past_those_who_wait_or_beyond_what_is_left() -> None:
    budget = ByteBudget(10)
    assert budget.take_at_once(6)
    assert not budget.take_at_once(5)
    waiting = budget.ask(8)
    # There is room for it, and one who wants more was here before.
    assert not budget.take_at_once(1)
    assert budget.held_bytes == 6
    budget.give_back(6)
    assert waiting.done()
    assert budget.take_at_once(2)
    budget.give_back(10)
    assert budget.take_at_once(1000)
    assert budget.held_bytes == 10
