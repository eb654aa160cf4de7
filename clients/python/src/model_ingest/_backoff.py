"""How long to wait before the next try, and when to stop trying."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from model_ingest._errors import IngestError


@dataclass(slots=True)
class Backoff:
    """Exponential backoff with jitter and a budget of time that progress renews.

    A link that breaks every 30 s but moves bytes in between is worth any number of tries; one
    that moves nothing for `patience_seconds` is not. One object per job; not for many tasks.
    """

    patience_seconds: float = 120.0
    first_seconds: float = 0.25
    most_seconds: float = 5.0
    clock: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform
    _tries: int = field(default=0, init=False)
    #: Of each kind: a link that broke three times is no reason not to send a damaged chunk again.
    _tries_of: Counter[type[IngestError]] = field(default_factory=Counter, init=False)
    _since_seconds: float | None = field(default=None, init=False)

    def progressed(self) -> None:
        """Something moved: the next failure starts with a full budget."""
        self._tries = 0
        self._tries_of.clear()
        self._since_seconds = None

    def after(self, error: IngestError) -> float:
        """Seconds to wait before trying again; raises `error` when it is not to be tried again."""
        if not error.transient and error.max_tries is None:
            raise error
        now_seconds = self.clock()
        if self._since_seconds is None:
            self._since_seconds = now_seconds
        self._tries += 1
        self._tries_of[type(error)] += 1
        if error.max_tries is not None and self._tries_of[type(error)] > error.max_tries:
            raise error
        # Half fixed, half random: spread out, yet never a busy loop.
        longest = min(self.most_seconds, self.first_seconds * 2 ** min(self._tries - 1, 20))
        delay_seconds = self.uniform(longest / 2, longest)
        if error.retry_after_seconds is not None:
            delay_seconds += error.retry_after_seconds
        if now_seconds + delay_seconds - self._since_seconds > self.patience_seconds:
            raise error
        return delay_seconds
