"""Drives a reader that is written as a generator: any split of the bytes, a bounded piece of work at a time.

How it is fed: make one for each file when its upload opens; call `feed` with each piece as it arrives, from
byte 0 and in order, on a worker thread (one call at a time; it may be another thread each time), until
`state` is no longer NEEDS_MORE. After that `feed` does nothing, so the caller need not ask first. On resume
make a new one and feed it the committed prefix. With FAULT the upload ends (`faults.as_error()`); `result` is
there with DONE.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from typing import Generic, TypeVar

from ingest_service.formats.faults import Faults, FormatFault
from ingest_service.formats.source import Source, Steps

R = TypeVar("R")
_PIECE_BYTES = 256 << 10


class State(Enum):
    """How far a reader is."""

    NEEDS_MORE = "needs more"
    DONE = "header done"
    FAULT = "fault"


class IncrementalReader(Generic[R]):
    """One file's header: bytes in, a result or a fault out; `feed` never raises."""

    def __init__(
        self,
        source: Source,
        steps: Steps[R],
        cpu_budget_seconds: float,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self.state = State.NEEDS_MORE
        #: All that is wrong with the file, as far as it could be read.
        self.faults: Faults = source.faults
        self.result: R | None = None
        self._source = source
        self._steps = steps
        self._wanted = 0
        self._cpu_left = cpu_budget_seconds
        self._cpu_clock = cpu_clock
        # An empty file breaks its rule without a byte.
        self._run()

    @property
    def fault(self) -> FormatFault | None:
        """The first fault, once reading has ended with one."""
        return self.faults.found[0] if self.state is State.FAULT else None

    @property
    def offset(self) -> int:
        """How many bytes were read."""
        return self._source.offset

    def feed(self, data: bytes) -> None:
        """Takes the file's next bytes."""
        view = memoryview(data)
        for start in range(0, len(view), _PIECE_BYTES):
            if self.state is not State.NEEDS_MORE:
                return
            self._source.feed(view[start : start + _PIECE_BYTES])
            self._run()

    def _run(self) -> None:
        started = self._cpu_clock()
        try:
            while self._wanted <= self._source.available:
                self._wanted = next(self._steps)
            self._spend(self._cpu_clock() - started)
        except StopIteration as end:
            if self.faults.found:
                self._end(State.FAULT)
            else:
                self.result = end.value
                self._end(State.DONE)
        except FormatFault as fault:
            self.faults.take(fault)
            self._end(State.FAULT)

    def _spend(self, seconds: float) -> None:
        self._cpu_left -= seconds
        if self._cpu_left < 0:
            message = "Reading the header takes more processor time than a file may have."
            raise FormatFault("B1", self._source.offset, "header", message)

    def _end(self, state: State) -> None:
        self.state = state
        self._steps.close()
        self._source.drop()
