"""Wakes those who wait for an ingest's news. A hint only: whoever is woken reads the rows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


class Hub:
    """One flag per waiter, never a queue: a watcher that does not read costs nothing more than its flag."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._all: set[asyncio.Event] = set()

    def wake(self, ingest_id: str) -> None:
        """There may be news of this ingest."""
        for flag in self._waiting.get(ingest_id, ()):
            flag.set()
        for flag in self._all:
            flag.set()

    def wake_everybody(self) -> None:
        """For a shutdown, and when hints may have been missed: every waiter looks up."""
        for flags in (*self._waiting.values(), self._all):
            for flag in flags:
                flag.set()

    @contextlib.contextmanager
    def waiting_for(self, ingest_id: str) -> Iterator[asyncio.Event]:
        """A flag that is set when the ingest may have news."""
        flag = asyncio.Event()
        flags = self._waiting.setdefault(ingest_id, set())
        flags.add(flag)
        try:
            yield flag
        finally:
            flags.discard(flag)
            if not flags:
                self._waiting.pop(ingest_id, None)

    @contextlib.contextmanager
    def waiting_for_any(self) -> Iterator[asyncio.Event]:
        """A flag that is set when any ingest may have news."""
        flag = asyncio.Event()
        self._all.add(flag)
        try:
            yield flag
        finally:
            self._all.discard(flag)


async def wait_for_flag(flag: asyncio.Event, timeout_seconds: float) -> bool:
    """Waits until the flag is set, at most that long; True if it was."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds):
            await flag.wait()
    return flag.is_set()
