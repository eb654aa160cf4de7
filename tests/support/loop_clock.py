"""The event loop's clock, stopped: timers fire when a test says so, however busy the machine is."""

from __future__ import annotations

import asyncio

import pytest

#: More turns than it takes from a timer to whoever waits for what it does.
_TURNS = 10


class LoopClock:
    """Of the running loop, until `monkeypatch` puts the real one back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._now_seconds = loop.time()
        monkeypatch.setattr(loop, "time", lambda: self._now_seconds)

    async def advance(self, seconds: float) -> None:
        """Lets the time go by, and the loop do what is due then."""
        self._now_seconds += seconds
        for _ in range(_TURNS):
            await asyncio.sleep(0)
