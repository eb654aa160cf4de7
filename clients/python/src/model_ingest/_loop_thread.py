"""An event loop in a background thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, ClassVar, Final, TypeVar

_T = TypeVar("_T")
_LET_GO_SECONDS: Final = 5.0


class LoopThread:
    """One event loop in one daemon thread, shared by all `Client`s of the process (grpc.aio wants one)."""

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _shared: ClassVar[LoopThread | None] = None

    def __init__(self) -> None:
        self._users = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="model-ingest-loop", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls) -> LoopThread:
        """The running one, or a new one."""
        with cls._lock:
            if cls._shared is None:
                cls._shared = LoopThread()
            cls._shared._users += 1
            return cls._shared

    def release(self) -> None:
        """The last user stops the loop."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            LoopThread._shared = None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Waits for the coroutine's result. Ctrl-C here cancels it there, and waits until it has let go."""
        ended = threading.Event()

        async def supervised() -> _T:
            try:
                return await coroutine
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(supervised(), self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                ended.wait(_LET_GO_SECONDS)
            raise
