"""Ends a stream on which nothing moves."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol, Self


class Cancellable(Protocol):
    """The part of a grpc call that is needed here."""

    def cancel(self) -> bool: ...


class Watchdog:
    """Cancels `call` when `fed` was not called for `stall_seconds`; `fired` tells so afterwards.

    One timer for the whole stream instead of a timeout around each read: cancelled reads leak
    inside grpc (peers.md P16), and most timers would never fire.
    """

    def __init__(self, call: Cancellable, stall_seconds: float) -> None:
        self.fired = False
        self._call = call
        self._stall_seconds = stall_seconds
        self._loop = asyncio.get_running_loop()
        self._fed_at_seconds = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def fed(self) -> None:
        """Something moved."""
        self._fed_at_seconds = self._loop.time()

    def __enter__(self) -> Self:
        self._arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        self._timer = self._loop.call_at(self._fed_at_seconds + self._stall_seconds, self._look)

    def _look(self) -> None:
        if self._loop.time() - self._fed_at_seconds >= self._stall_seconds:
            self.fired = True
            self._call.cancel()
        else:
            self._arm()


def cancelled_from_outside() -> bool:
    """Whether a CancelledError in this task is a request to stop, not a call's own end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
