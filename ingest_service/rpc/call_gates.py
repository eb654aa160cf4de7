"""How many calls are read, and answered, at once.

A message costs memory from its first byte on, in gRPC's own buffers. So a call waits here, in the order of
arrival, before its message is asked for: HTTP/2 flow control then leaves the bytes with the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import TypeVar

from ingest_service.rpc.upload_pace import expire
from ingest_service.vocabulary.errors import TooBusy

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_LOG_SECONDS = 1.0


class ReadingGate:
    """So many calls are read at once.

    While others wait, whoever has not sent its whole message after `patience_seconds` is ended: clients that
    open calls and send nothing cannot keep the others out.
    """

    def __init__(self, name: str, *, slots: int, max_waiting: int, patience_seconds: float) -> None:
        self._slots = slots
        self._patience_seconds = patience_seconds
        self._refusals = Refusals(name)
        self._max_waiting = max_waiting
        self._waiting = 0
        self._line = asyncio.Lock()
        self._freed = asyncio.Event()
        #: The oldest first.
        self._readings: dict[_Reading, None] = {}

    async def read(self, messages: AsyncIterator[_T]) -> _T:
        """The next message. Raises TooBusy, and StopAsyncIteration if none comes."""
        if self._waiting >= self._max_waiting:
            raise self._refusals.one_more()
        self._waiting += 1
        try:
            async with self._line:
                await self._wait_for_a_slot()
                reading = _Reading()
                self._readings[reading] = None
        finally:
            self._waiting -= 1
        try:
            async with asyncio.timeout(None) as reading.deadline:
                return await anext(messages)
        except TimeoutError:
            raise self._refusals.one_more() from None
        finally:
            self._end(reading)

    async def _wait_for_a_slot(self) -> None:
        """Of those who wait, only the first in the line is here."""
        while len(self._readings) >= self._slots:
            oldest = next(iter(self._readings))
            left_seconds = oldest.began + self._patience_seconds - asyncio.get_running_loop().time()
            if left_seconds <= 0:
                oldest.end()
                self._end(oldest)
                continue
            self._freed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_seconds):
                    await self._freed.wait()

    def _end(self, reading: _Reading) -> None:
        self._readings.pop(reading, None)
        self._freed.set()


class _Reading:
    """One call that is being read."""

    def __init__(self) -> None:
        self.began = asyncio.get_running_loop().time()
        self.deadline: asyncio.Timeout | None = None

    def end(self) -> None:
        if self.deadline is not None:
            expire(self.deadline)


class WorkGate:
    """So many calls are answered at once; the others wait, for `patience_seconds` at most."""

    def __init__(self, name: str, *, slots: int, max_waiting: int, patience_seconds: float) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._patience_seconds = patience_seconds
        self._max_waiting = max_waiting
        self._waiting = 0
        self._refusals = Refusals(name)

    @contextlib.asynccontextmanager
    async def work(self) -> AsyncIterator[None]:
        """While one is answered. Raises TooBusy."""
        if self._waiting >= self._max_waiting:
            raise self._refusals.one_more()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience_seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise self._refusals.one_more() from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()


class Refusals:
    """Counts them: one line of the log a second, however many there are."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0
        self._next_line = float("-inf")

    def one_more(self) -> TooBusy:
        """The error to raise."""
        self._count += 1
        now = asyncio.get_running_loop().time()
        if now >= self._next_line:
            _log.warning("too many calls at once", extra={"gate": self._name, "refused": self._count})
            self._count, self._next_line = 0, now + _LOG_SECONDS
        return TooBusy()
