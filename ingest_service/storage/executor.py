"""A bounded pool of threads for what would block the event loop: files, syncs, hashes, directory walks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class FileExecutor:
    """Runs blocking calls in threads.

    A caller that is cancelled stops waiting, but the call it submitted still runs to its end: `run` shields
    the future, so that whoever owns the file can wait for it (`LocalPartial.close`).
    """

    def __init__(self, threads: int, *, nice: int = 0) -> None:
        """`nice` is the priority of its threads, 19 the lowest; ignored where threads cannot have one."""
        self._pool = ThreadPoolExecutor(
            max_workers=threads, thread_name_prefix="file", initializer=_set_priority, initargs=(nice,)
        )

    def submit(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> asyncio.Future[_T]:
        """Queues a call; the future belongs to the running loop."""
        return asyncio.wrap_future(self._pool.submit(call, *args, **kwargs))

    async def run(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Queues a call and waits for it."""
        return await asyncio.shield(self.submit(call, *args, **kwargs))

    async def open(self, call: Callable[_P, int | None], *args: _P.args, **kwargs: _P.kwargs) -> int | None:
        """Like `run` for a call that answers a descriptor; it is closed if the caller was cancelled."""
        future = self.submit(call, *args, **kwargs)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_close_orphan)
            raise

    def close(self, *, drop_queued: bool = True) -> None:
        """Waits for what is running, and for what is still queued unless that is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=drop_queued)


def _set_priority(nice: int) -> None:
    # Elsewhere than on Linux the call is about the whole process.
    if nice and sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)


def _close_orphan(future: asyncio.Future[int | None]) -> None:
    if future.cancelled() or future.exception() is not None:
        return
    descriptor = future.result()
    if descriptor is not None:
        os.close(descriptor)
