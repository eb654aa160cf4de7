"""Is the client of an upload still sending, and fast enough?"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from ingest_service.ingests.limits import Limits
from ingest_service.vocabulary.errors import UploadStalled

_MINUTE_SECONDS = 60.0
_SAME_BYTES_SECONDS = 600.0


class Pace:
    """Counts what came within each minute, and whether the file grew at all."""

    def __init__(self, limits: Limits, now_seconds: float) -> None:
        self._least = limits.min_bytes_per_minute
        self._since = self._grew = now_seconds
        self._bytes = self._position = 0

    def pause(self, seconds: float) -> None:
        """For so long it was not the client's turn."""
        self._since += seconds
        self._grew += seconds

    def check(self, size_bytes: int, position: int, now_seconds: float) -> None:
        """Takes note of a chunk and of how far the file got with it.

        Raises UploadStalled if the minute that just ended brought too little, or nothing new came for long:
        sending the same bytes for ever is no progress either.
        """
        if self._is_too_slow(size_bytes, position, now_seconds):
            raise UploadStalled(f"The stream brought fewer than {self._least} bytes in a minute.")

    def _is_too_slow(self, size_bytes: int, position: int, now_seconds: float) -> bool:
        if position > self._position or not self._least:
            self._position, self._grew = position, now_seconds
        if now_seconds - self._grew > _SAME_BYTES_SECONDS:
            return True
        self._bytes += size_bytes
        if now_seconds - self._since < _MINUTE_SECONDS:
            return False
        too_slow = self._bytes < self._least
        self._since, self._bytes = now_seconds, 0
        return too_slow


class IdleWatch:
    """Lets `deadline` expire once the client has been silent for `idle_seconds`, beginning now.

    One timer, looked after when it fires: to move one for each message cost more than all other bookkeeping
    of the message.
    """

    def __init__(self, deadline: asyncio.Timeout, idle_seconds: float) -> None:
        self._deadline = deadline
        self._seconds = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._since: float | None = self._loop.time()
        self._timer = self._loop.call_later(idle_seconds, self._look)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def client_acts(self) -> None:
        """It is the client's turn from now on."""
        self._since = self._loop.time()

    def we_act(self) -> None:
        """While we work, the client is not the one who idles."""
        self._since = None

    def _look(self) -> None:
        now = self._loop.time()
        since = now if self._since is None else self._since
        if now - since >= self._seconds:
            expire(self._deadline)
        else:
            self._timer = self._loop.call_at(since + self._seconds, self._look)


def expire(deadline: asyncio.Timeout) -> None:
    """Ends the wait now."""
    # RuntimeError: it has expired in this very turn of the loop; the reader wakes up either way.
    with contextlib.suppress(RuntimeError):
        deadline.reschedule(asyncio.get_running_loop().time())
