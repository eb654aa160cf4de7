"""One line when something goes away, one when it is back, and one a minute with a count in between."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)
_REMIND_SECONDS = 60.0
_SETTLE_SECONDS = 5.0


class OutageLog:
    """Told of every failure and every success; call it from one thread.

    `kind` names a way of use (reading, writing): each way that failed has to work again to end the outage.
    """

    def __init__(self, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._failing: set[str] = set()
        self._failures = 0
        self._began_seconds = 0.0
        #: When the last line was written; None: never.
        self._told_seconds: float | None = None
        self._is_told = False

    def failed(self, kind: str, detail: str) -> None:
        """Something could not be done."""
        now = self._clock()
        if not self._failing:
            self._failures, self._began_seconds, self._is_told = 0, now, False
        self._failing.add(kind)
        self._failures += 1
        # What goes away again right after it came back is told later, if it lasts.
        pause = _REMIND_SECONDS if self._is_told else _SETTLE_SECONDS
        if self._told_seconds is not None and now - self._told_seconds < pause:
            return
        word = "still cannot be used" if self._is_told else "cannot be used"
        _log.error("%s %s", self._what, word, extra={"detail": detail, "failures": self._failures})
        self._told_seconds, self._is_told = now, True

    def worked(self, kind: str) -> None:
        """Something could be done."""
        if not self._failing:
            return
        self._failing.discard(kind)
        if self._failing or not self._is_told:
            return
        now = self._clock()
        extra = {"failures": self._failures, "seconds": round(now - self._began_seconds, 1)}
        _log.info("%s can be used again", self._what, extra=extra)
        self._told_seconds = now
