"""Progress, but not too much of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable


class Throttle:
    """Lets progress through when it grew by a tenth, after 30 s if it grew at all, and at the end."""

    def __init__(
        self, *, step: float = 0.1, pause_seconds: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._step = step
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._last: dict[Hashable, tuple[float, float]] = {}

    def due(self, thing: Hashable, fraction: float) -> bool:
        """Whether to tell now. `fraction` is 0 to 1; a smaller one than before starts anew."""
        now_seconds = self._clock()
        told_fraction, told_at_seconds = self._last.get(thing, (0.0, now_seconds))
        self._last.setdefault(thing, (0.0, now_seconds))
        if fraction < told_fraction:
            self._last[thing] = (fraction, now_seconds)
            return False
        # Tenths are not exact in binary.
        grown = round(fraction - told_fraction, 9)
        if grown <= 0:
            return False
        early = grown < self._step and now_seconds - told_at_seconds < self._pause_seconds
        if early and fraction < 1:
            return False
        self._last[thing] = (fraction, now_seconds)
        return True
