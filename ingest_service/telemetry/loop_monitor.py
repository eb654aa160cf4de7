"""How late the event loop is, measured all the time, and the stack of whatever keeps it from turning.

A heartbeat on the loop says every few milliseconds how late it came. A thread beside it sees a heartbeat that
is overdue and looks at the loop's thread while it is stuck: afterwards there is nothing left to see. What
holds the GIL all the while is seen only as it lets go of it, and a stall barely over the limit may end before
the thread looks: such stalls are counted, with no stack.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from types import FrameType

_log = logging.getLogger(__name__)
#: Often enough for a stall of a few of these to be seen, seldom enough to cost nothing (performance-loop.md).
_BEAT_SECONDS = 0.02
_SUMMARY_SECONDS = 60.0
#: Stacks are logged no more often than this; what was left out is counted.
_STACK_LOG_SECONDS = 10.0
#: A stack has to fit into a field of the log, its innermost call first of all.
_MAX_FRAMES = 25
_MAX_CALL_CHARACTERS = 78
#: So that a look comes just after the limit and not just before.
_A_LITTLE_SECONDS = 0.001
#: Upper bounds of the histogram; the last class is what is above them.
BOUNDS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


@dataclass(frozen=True, slots=True)
class LoopLag:
    """What was seen since the start."""

    beats: int = 0
    #: How many beats came so late, one number for each of BOUNDS_SECONDS and one for those above.
    histogram: tuple[int, ...] = (0,) * (len(BOUNDS_SECONDS) + 1)
    lag_seconds: float = 0.0
    longest_seconds: float = 0.0
    #: Beats later than the limit.
    stalls: int = 0
    #: Of these seconds of stalls the loop's thread computed so many; for the rest it waited, for a call that
    #: blocks or for a CPU.
    stalled_seconds: float = 0.0
    stalled_cpu_seconds: float = 0.0

    def fields(self) -> dict[str, int | float | str]:
        """For a log's record: `le_0.05=12` are the beats that came within 50 ms and not within 20 ms."""
        names = [*(f"{bound:g}" for bound in BOUNDS_SECONDS), "more"]
        classes = zip(names, self.histogram, strict=True)
        return {
            "beats": self.beats,
            "stalls": self.stalls,
            "longest_seconds": round(self.longest_seconds, 4),
            "stalled_seconds": round(self.stalled_seconds, 3),
            "stalled_cpu_seconds": round(self.stalled_cpu_seconds, 3),
            "histogram": " ".join(f"le_{name}={count}" for name, count in classes if count),
        }


def _short(file: str) -> str:
    return "/".join(file.rsplit("/", 2)[-2:])


def _calls(frame: FrameType | None) -> list[str]:
    """The innermost calls, outermost first. No lines of source: to read them now would be file work."""
    calls = [
        f"{_short(one.f_code.co_filename)}:{line} {one.f_code.co_name}"[:_MAX_CALL_CHARACTERS]
        for one, line in islice(traceback.walk_stack(frame), _MAX_FRAMES)
    ]
    return calls[::-1]


class LoopMonitor:
    """`start` on the loop that is to be watched, `stop` on the same; `lag` whenever somebody asks."""

    def __init__(self, stall_seconds: float, *, on_stall: Callable[[float, str], None] | None = None) -> None:
        """`on_stall` is told, on the watching thread, how long the loop is stuck already, and in what."""
        self._stall_seconds = stall_seconds
        self._on_stall = on_stall or self._log_stall
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._loop_thread = 0
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        #: Written by the loop, read by the thread: the beat that is due, by the monotonic clock.
        self._due = 0.0
        self._cpu_seconds = 0.0
        self._lag = LoopLag()
        self._told_stalls = 0
        self._next_summary = 0.0
        self._last_stack_log = float("-inf")
        self._left_out = 0

    @property
    def lag(self) -> LoopLag:
        """What was seen so far."""
        return self._lag

    def start(self) -> None:
        """Called on the loop."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._next_summary = time.monotonic() + _SUMMARY_SECONDS
        self._expect()
        self._thread = threading.Thread(target=self._watch, name="loop-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Logs what was seen. Does nothing if it was not started."""
        if self._handle is None or self._thread is None:
            return
        self._handle.cancel()
        self._handle = None
        self._stopped.set()
        # It sleeps on that event and holds nothing that the loop would have to give it.
        self._thread.join(1.0)
        _log.info("event loop", extra=self._lag.fields())

    def _expect(self) -> None:
        assert self._loop is not None
        self._cpu_seconds = time.thread_time()
        self._due = time.monotonic() + _BEAT_SECONDS
        self._handle = self._loop.call_later(_BEAT_SECONDS, self._beat)

    def _beat(self) -> None:
        now = time.monotonic()
        self._note(max(0.0, now - self._due), time.thread_time() - self._cpu_seconds)
        if now >= self._next_summary:
            self._next_summary = now + _SUMMARY_SECONDS
            if self._lag.stalls > self._told_stalls:
                self._told_stalls = self._lag.stalls
                _log.info("event loop stalled", extra=self._lag.fields())
        self._expect()

    def _note(self, late_seconds: float, cpu_seconds: float) -> None:
        lag = self._lag
        place = bisect_left(BOUNDS_SECONDS, late_seconds)
        is_stall = late_seconds > self._stall_seconds
        self._lag = LoopLag(
            beats=lag.beats + 1,
            histogram=(*lag.histogram[:place], lag.histogram[place] + 1, *lag.histogram[place + 1 :]),
            lag_seconds=lag.lag_seconds + late_seconds,
            longest_seconds=max(lag.longest_seconds, late_seconds),
            stalls=lag.stalls + is_stall,
            stalled_seconds=lag.stalled_seconds + (late_seconds if is_stall else 0.0),
            stalled_cpu_seconds=lag.stalled_cpu_seconds + (cpu_seconds if is_stall else 0.0),
        )

    def _watch(self) -> None:
        """In its own thread. One look at each stall, as soon as it is one."""
        seen = 0.0
        assert self._loop is not None
        wait_seconds = self._stall_seconds
        while not self._stopped.wait(wait_seconds) and not self._loop.is_closed():
            due = self._due
            late_seconds = time.monotonic() - due
            # Up again when this beat would be a stall; while the loop turns it has moved on by then.
            left_seconds = self._stall_seconds - late_seconds
            wait_seconds = left_seconds + _A_LITTLE_SECONDS if left_seconds > 0 else self._stall_seconds
            if late_seconds > self._stall_seconds and due != seen:
                seen = due
                calls = _calls(sys._current_frames().get(self._loop_thread))
                if self._due == due and not self._stopped.is_set():
                    # Else the loop went on meanwhile, and this is the stack of something harmless.
                    self._on_stall(late_seconds, "\n".join(calls))

    def _log_stall(self, late_seconds: float, stack: str) -> None:
        now = time.monotonic()
        if now - self._last_stack_log < _STACK_LOG_SECONDS:
            self._left_out += 1
            return
        self._last_stack_log = now
        _log.warning(
            "the event loop is stuck",
            extra={
                "for_seconds": round(late_seconds, 3),
                "stack": stack,
                "not_logged_before": self._left_out,
            },
        )
        self._left_out = 0
