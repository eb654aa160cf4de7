"""Small calls beside uploads: while one is answered, uploads hand the loop their messages one by one.

A message of a MiB costs the loop a millisecond. Eight clients that send as fast as they can have one ready
each time somebody asks, so every turn of the loop took eight of them, and a small call, which needs a dozen
turns, took as long as a hundred messages. To let uploads take turns always would cost those that are many a
quarter of their rate (docs/performance-loop.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

_T = TypeVar("_T")

#: Who makes one small call often makes the next; the first one met the uploads at full speed.
_LINGER_SECONDS = 0.05
#: Who had a message within this time (that of a few turns of a busy loop) for so many in a row sends as fast
#: as it can. Bursts do not count: eighty clients that sent two and fell silent kept all others waiting.
_READY_SECONDS = 0.05
_FAST_AFTER = 16
#: A turn ends after this long, and who let it end has to show four times as much; it is waited for this long.
_TURN_SECONDS = 0.005
_WAIT_SECONDS = 0.02


class ReadTurns:
    """Of one server."""

    def __init__(self) -> None:
        self._free = asyncio.Lock()
        self._small_calls = 0
        self._last_ended = float("-inf")

    @contextlib.contextmanager
    def small_call(self) -> Iterator[None]:
        """While one is answered."""
        self._small_calls += 1
        try:
            yield
        finally:
            self._small_calls -= 1
            self._last_ended = asyncio.get_running_loop().time()

    async def in_turn(self, messages: AsyncIterator[_T]) -> AsyncIterator[_T]:
        """The messages of one upload."""
        clock = asyncio.get_running_loop().time
        ready_in_a_row = 0
        while True:
            is_fast = ready_in_a_row >= _FAST_AFTER
            is_in_turn = is_fast and (self._small_calls or clock() - self._last_ended < _LINGER_SECONDS)
            turn = await self._take() if is_in_turn else None
            asked = clock()
            try:
                message = await anext(messages)
            except StopAsyncIteration:
                return
            finally:
                was_late = turn is not None and not turn.end()
            if was_late:
                ready_in_a_row = -3 * _FAST_AFTER
            else:
                ready_in_a_row = ready_in_a_row + 1 if clock() - asked < _READY_SECONDS else 0
            yield message

    async def _take(self) -> _Turn | None:
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            return None
        return _Turn(self._free)


class _Turn:
    """Ends by itself if the message is long in coming."""

    def __init__(self, taken: asyncio.Lock) -> None:
        self._taken: asyncio.Lock | None = taken
        self._timer = asyncio.get_running_loop().call_later(_TURN_SECONDS, self.end)

    def end(self) -> bool:
        """False if it had ended before."""
        self._timer.cancel()
        taken, self._taken = self._taken, None
        if taken is not None:
            taken.release()
        return taken is not None
