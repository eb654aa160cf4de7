"""The event loop's monitor: what it counts, what it sees of a loop that is stuck, and what it logs.

Breaks when: a stall is not seen while it lasts, its stack is somebody else's, lag is not counted, the log is
flooded, or the service does not run it. No test judges by the clock: a stall ends when it was seen.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from typing import Any

import pytest
from model_ingest.v1.ingest_service_pb2 import GetCapabilitiesRequest, ListIngestsRequest

from ingest_service.telemetry.logs import JsonFormatter
from ingest_service.telemetry.loop_monitor import BOUNDS_SECONDS, LoopMonitor, _calls
from tests.conftest import StartService

_STALL_SECONDS = 0.02
#: Only a monitor that sees nothing lets it pass.
_GIVE_UP_SECONDS = 30.0


class Seen:
    """Keeps the loop stuck until the monitor has looked."""

    def __init__(self) -> None:
        self.stalls: list[tuple[float, str]] = []
        self.threads: list[int] = []
        self._looked = threading.Event()

    def __call__(self, late_seconds: float, stack: str) -> None:
        self.stalls.append((late_seconds, stack))
        self.threads.append(threading.get_ident())
        if "hold_the_loop" in stack:
            self._looked.set()

    def hold_the_loop(self) -> bool:
        """Blocks whoever calls; False if nobody came to look."""
        self._looked.clear()
        return self._looked.wait(_GIVE_UP_SECONDS)


async def _beats(monitor: LoopMonitor, more: int) -> None:
    wanted = monitor.lag.beats + more
    while monitor.lag.beats < wanted:
        await asyncio.sleep(0)


async def test_a_stall_is_seen_while_it_lasts_with_its_stack_and_is_counted_after() -> None:
    seen = Seen()
    monitor = LoopMonitor(_STALL_SECONDS, on_stall=seen)
    monitor.start()
    try:
        await _beats(monitor, 1)
        before = monitor.lag
        assert seen.hold_the_loop()
        await _beats(monitor, 1)
        after = monitor.lag
    finally:
        monitor.stop()
    late_seconds, stack = seen.stalls[-1]
    assert late_seconds > _STALL_SECONDS
    lines = stack.splitlines()
    # The innermost last, as in a traceback; the test above it.
    assert any(line.endswith(" hold_the_loop") for line in lines)
    assert "wait" in lines[-1]
    assert "/threading.py:" in lines[-1]
    assert any("test_loop_monitor.py:" in line for line in lines)
    assert seen.threads[-1] != threading.get_ident()
    assert after.stalls > before.stalls
    assert after.longest_seconds >= late_seconds
    assert after.stalled_seconds - before.stalled_seconds >= late_seconds
    # It waited, it did not compute.
    assert after.stalled_cpu_seconds < after.stalled_seconds


async def test_a_loop_that_is_stuck_once_is_looked_at_once() -> None:
    first, second = Seen(), threading.Event()
    monitor = LoopMonitor(_STALL_SECONDS, on_stall=first)
    monitor.start()
    assert first.hold_the_loop()
    # Some more rounds of the watching thread.
    second.wait(_STALL_SECONDS * 5)
    count = len(first.stalls)
    await _beats(monitor, 1)
    monitor.stop()
    # All of this was one turn of the loop, and so one stall.
    assert sum("test_a_loop_that_is_stuck" in stack for _, stack in first.stalls[:count]) == 1


def test_a_deep_stack_fits_into_the_log_with_its_innermost_calls() -> None:
    def deep_down_in_a_function_with_a_name_that_is_far_too_long_for_a_line_of_a_log(
        levels: int,
    ) -> list[str]:
        return (
            deep_down_in_a_function_with_a_name_that_is_far_too_long_for_a_line_of_a_log(levels - 1)
            if levels
            else innermost()
        )

    def innermost() -> list[str]:
        return _calls(sys._getframe())

    calls = deep_down_in_a_function_with_a_name_that_is_far_too_long_for_a_line_of_a_log(60)
    assert "telemetry/test_loop_monitor.py:" in calls[-1]
    assert calls[-1].endswith(" innermost")
    assert " deep_down" in calls[-2]
    text = "\n".join(calls)
    assert len(text) > 1000
    record = logging.makeLogRecord({"msg": "x", "stack": text})
    assert json.loads(JsonFormatter().format(record))["stack"] == text


async def test_every_beat_is_in_one_class_of_the_histogram() -> None:
    monitor = LoopMonitor(60.0)
    monitor.start()
    await _beats(monitor, 3)
    monitor.stop()
    lag = monitor.lag
    assert sum(lag.histogram) == lag.beats >= 3
    assert lag.stalls == 0
    assert lag.lag_seconds >= lag.longest_seconds >= 0


@pytest.mark.parametrize(
    ("late_seconds", "place", "stalls"),
    [
        (0.0, 0, 0),
        (0.001, 0, 0),
        (0.0011, 1, 0),
        (0.05, 5, 0),
        (0.1, 6, 0),
        (0.11, 7, 1),
        (5.0, 10, 1),
        (9.0, 11, 1),
    ],
)
def test_the_classes_of_the_histogram(late_seconds: float, place: int, stalls: int) -> None:
    monitor = LoopMonitor(0.1)
    monitor._note(late_seconds, 0.25)
    lag = monitor.lag
    assert [lag.histogram.index(1), lag.stalls, lag.longest_seconds] == [place, stalls, late_seconds]
    assert (lag.stalled_seconds, lag.stalled_cpu_seconds) == ((late_seconds, 0.25) if stalls else (0.0, 0.0))
    named = f"le_{BOUNDS_SECONDS[place]:g}=1" if place < len(BOUNDS_SECONDS) else "le_more=1"
    assert lag.fields()["histogram"] == named


def test_stacks_are_not_logged_faster_than_somebody_can_read(caplog: pytest.LogCaptureFixture) -> None:
    monitor = LoopMonitor(0.1)
    for name in ("first", "second", "third"):
        monitor._log_stall(0.2, name)
    monitor._last_stack_log = float("-inf")
    monitor._log_stall(0.3, "fourth")
    said: list[Any] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [(one.stack, one.for_seconds, one.not_logged_before) for one in said] == [
        ("first", 0.2, 0),
        ("fourth", 0.3, 2),
    ]


async def test_a_summary_is_logged_now_and_then_only_if_there_were_stalls(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monitor = LoopMonitor(60.0)
    monitor.start()

    async def summaries() -> int:
        monitor._next_summary = 0.0
        await _beats(monitor, 1)
        return sum(record.message == "event loop stalled" for record in caplog.records)

    assert await summaries() == 0
    monitor._note(61.0, 0.0)
    assert await summaries() == 1
    assert await summaries() == 1
    monitor._note(61.0, 0.0)
    assert await summaries() == 2
    monitor.stop()
    assert [record.message for record in caplog.records][-1] == "event loop"


async def test_stop_ends_the_thread_and_the_beats() -> None:
    monitor = LoopMonitor(60.0)
    monitor.stop()  # not started: nothing to stop
    monitor.start()
    thread = monitor._thread
    assert thread is not None
    await _beats(monitor, 1)
    monitor.stop()
    monitor.stop()
    assert not thread.is_alive()
    assert monitor._handle is None


async def test_the_service_watches_its_loop_from_start_to_stop(
    start_service: StartService, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    service = await start_service(stall_seconds=0.05)
    monitor: LoopMonitor = service.service.loop_monitor
    seen = Seen()
    log_stall = monitor._on_stall

    def on_stall(late_seconds: float, stack: str) -> None:
        monitor._last_stack_log = float("-inf")
        log_stall(late_seconds, stack)
        seen(late_seconds, stack)

    monkeypatch.setattr(monitor, "_on_stall", on_stall)
    page = service.service.ingests.page

    async def blocking_page(*arguments: Any, **values: Any) -> Any:
        assert seen.hold_the_loop()
        return await page(*arguments, **values)

    monkeypatch.setattr(service.service.ingests, "page", blocking_page)
    await service.ingests.ListIngests(ListIngestsRequest())
    await service.ingests.GetCapabilities(GetCapabilitiesRequest())
    records: list[Any] = [record for record in caplog.records if record.message == "the event loop is stuck"]
    assert any("blocking_page" in record.stack for record in records)
    await _beats(monitor, 1)
    assert monitor.lag.stalls >= 1
    await service.service.stop(0.0)
    assert monitor._handle is None
    summaries: list[Any] = [record for record in caplog.records if record.message == "event loop"]
    assert [record.stalls >= 1 for record in summaries] == [True]
