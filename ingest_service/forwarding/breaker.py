"""A circuit breaker for one target: one that does not answer is left alone for a while."""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable

#: So many attempts in a row have to fail before a target counts as dead.
_FAILURES = 3
_FIRST_REST_SECONDS = 5.0
_LONGEST_REST_SECONDS = 60.0


#: So often a target may break off while it creates one model before that is taken for its doing.
MAX_CREATES_CUT = 3
_REMEMBERED = 256


class Breaker:
    """Closed: attempts go through. After some failures in a row it rests; then one attempt may try.

    While a target rests, its deployments cost it, and us, no connection. It is a process's own knowledge:
    each replica finds out for itself.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._rests_until = 0.0
        self._creates_cut: OrderedDict[str, int] = OrderedDict()
        self.words = ""

    @property
    def rests(self) -> bool:
        """No attempt should be made now."""
        return self._failures >= _FAILURES and self._clock() < self._rests_until

    @property
    def is_open(self) -> bool:
        """The last attempt got no answer."""
        return self._failures > 0

    def failed(self, words: str) -> None:
        """The target did not answer."""
        self._failures += 1
        self.words = words
        if self._failures >= _FAILURES:
            doublings = min(self._failures - _FAILURES, 16)
            rest = min(_LONGEST_REST_SECONDS, _FIRST_REST_SECONDS * 2.0**doublings)
            self._rests_until = self._clock() + rest * random.uniform(0.8, 1.0)  # noqa: S311 (no secret)

    def create_was_cut(self, deployment_id: str) -> bool:
        """The target broke off while it created this one; True if it has done so too often. After that the
        count begins anew, for whoever has it retried."""
        cuts = self._creates_cut.pop(deployment_id, 0) + 1
        if cuts >= MAX_CREATES_CUT:
            return True
        self._creates_cut[deployment_id] = cuts
        if len(self._creates_cut) > _REMEMBERED:
            self._creates_cut.popitem(last=False)
        return False

    def succeeded(self) -> None:
        """The target answered."""
        self._failures = 0
