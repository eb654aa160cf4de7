"""Waits grow, spread out, respect the server, and end."""

from __future__ import annotations

import pytest
from model_ingest import BusyError, ChecksumError, ConnectionLostError, IngestError, RefusedError
from model_ingest._backoff import Backoff
from model_ingest._errors import Facts
from model_ingest._retry import repeat, run


class Clock:
    def __init__(self) -> None:
        self.now_seconds = 0.0

    def __call__(self) -> float:
        return self.now_seconds

    async def sleep(self, seconds: float) -> None:
        self.now_seconds += seconds


LOST = ConnectionLostError("lost")


def longest(low: float, high: float) -> float:
    return high


def test_waits_double_up_to_a_limit():
    backoff = Backoff(1000, clock=Clock(), uniform=longest)
    assert [backoff.after(LOST) for _ in range(8)] == [0.25, 0.5, 1, 2, 4, 5, 5, 5]


def test_jitter_is_the_upper_half():
    spans: list[tuple[float, float]] = []

    def note(low: float, high: float) -> float:
        spans.append((low, high))
        return low

    backoff = Backoff(clock=Clock(), uniform=note)
    assert [backoff.after(LOST), backoff.after(LOST)] == [0.125, 0.25]
    assert spans == [(0.125, 0.25), (0.25, 0.5)]


def test_the_server_says_how_long():
    backoff = Backoff(clock=Clock(), uniform=longest)
    assert backoff.after(BusyError("busy", Facts(retry_after_seconds=30))) == 30.25


def test_patience_ends_and_raises_the_error_itself():
    clock = Clock()
    backoff = Backoff(10, clock=clock, uniform=longest)

    def wait_for_ever() -> None:
        while True:
            clock.now_seconds += backoff.after(LOST)

    with pytest.raises(ConnectionLostError) as caught:
        wait_for_ever()
    assert caught.value is LOST
    assert clock.now_seconds <= 10


def test_progress_renews_the_budget():
    clock = Clock()
    backoff = Backoff(3, clock=clock, uniform=longest)
    for _ in range(50):
        clock.now_seconds += backoff.after(LOST) + 2
        backoff.progressed()
    assert clock.now_seconds > 100


def test_a_refusal_is_never_tried_again():
    with pytest.raises(RefusedError):
        Backoff().after(RefusedError("no"))


def test_a_wrong_checksum_is_tried_three_times():
    backoff = Backoff(clock=Clock())
    for _ in range(3):
        backoff.after(ChecksumError("crc"))
    with pytest.raises(ChecksumError):
        backoff.after(ChecksumError("crc"))


class Scripted:
    """A strategy that does as it is told and notes what it was asked."""

    def __init__(self, *outcomes: IngestError | str | None) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[str] = []

    def _next(self, what: str) -> str | None:
        self.asked.append(what)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, IngestError):
            raise outcome
        return outcome

    async def attempt(self) -> str:
        return self._next("attempt") or ""

    async def recover(self) -> str | None:
        return self._next("recover")


async def _run(strategy: Scripted) -> str:
    clock = Clock()
    return await run(strategy, Backoff(60, clock=clock), sleep=clock.sleep)


async def test_the_loop_looks_before_it_tries_again():
    strategy = Scripted(LOST, None, LOST, None, "done")
    assert await _run(strategy) == "done"
    assert strategy.asked == ["attempt", "recover", "attempt", "recover", "attempt"]


async def test_the_loop_looks_again_while_looking_fails():
    strategy = Scripted(LOST, LOST, LOST, None, "done")
    assert await _run(strategy) == "done"
    assert strategy.asked == ["attempt", "recover", "recover", "recover", "attempt"]


async def test_a_lost_answer_is_found_by_looking():
    strategy = Scripted(LOST, "it is there")
    assert await _run(strategy) == "it is there"
    assert strategy.asked == ["attempt", "recover"]


async def test_the_truth_found_by_looking_ends_the_loop():
    strategy = Scripted(LOST, RefusedError("cancelled"))
    with pytest.raises(RefusedError, match="cancelled"):
        await _run(strategy)


async def test_repeat_repeats():
    clock = Clock()
    strategy = Scripted(LOST, LOST, "done")
    assert await repeat(strategy.attempt, Backoff(clock=clock), sleep=clock.sleep) == "done"


def test_other_failures_do_not_use_up_the_tries_of_a_limited_one() -> None:
    backoff = Backoff()
    for _ in range(3):
        backoff.after(ConnectionLostError("the link broke"))
    for _ in range(3):
        backoff.after(ChecksumError("a chunk was damaged"))
    with pytest.raises(ChecksumError):
        backoff.after(ChecksumError("a chunk was damaged"))
