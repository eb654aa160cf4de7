"""The emulator on an event loop of its own, for tests that have none or must not share theirs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from .server import OllamaEmulator

T = TypeVar("T")


class EmulatorThread:
    """`with EmulatorThread(version=...) as emulator:`; the fault plan, the call record and the
    stores may be used from any thread, coroutines go through `run`."""

    def __init__(self, version: str = "0.24.0", data_dir: Path | str | None = None, **options: Any) -> None:
        self._arguments = (version, data_dir)
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="emulator-loop")

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 30) -> T:
        """Runs a coroutine such as `emulator.restart()` on the emulator's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def __enter__(self) -> OllamaEmulator:
        self._thread.start()
        try:
            self.emulator = OllamaEmulator(*self._arguments, **self._options)
            self.run(self.emulator.start_listening())
        except BaseException:
            self._stop()
            raise
        return self.emulator

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.run(self.emulator.aclose())
        finally:
            self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
