"""Patience with a database that is away, or has no room, for a moment."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ingest_service.vocabulary.errors import BackendDown

_T = TypeVar("_T")
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0


class Patience:
    """Repeats a transaction that nobody else would make good: the last word on a file.

    Until it works, or the service stops: then the next boot puts the row right.
    """

    def __init__(self) -> None:
        self._ended = asyncio.Event()

    def end(self) -> None:
        """The service stops: one last try for each, without a pause."""
        self._ended.set()

    async def until_done(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Runs `work`, which may run again. Raises BackendDown once patience has ended."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            last = self._ended.is_set()
            try:
                return await work()
            except BackendDown:
                if last:
                    raise
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._ended.wait()
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
