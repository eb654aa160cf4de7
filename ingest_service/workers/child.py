"""A worker's side of the line to its parent: stdout tells that it serves, stdin's end that it is alone."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable

SERVING = b"serving"
#: Held back from the start of a worker until it has handlers for them: a stop is never lost or unclean.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(__name__)


def let_stop_signals_in() -> None:
    """Called once there are handlers for them; a process that is no worker's loses nothing by it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


class WorkerSide:
    """What `serve` does more when it is a worker."""

    def watch(self, stop: Callable[[], None]) -> None:
        """From here on signals arrive, and `stop` is called once there is no parent any more."""
        loop = asyncio.get_running_loop()

        def orphaned() -> None:
            if not os.read(sys.stdin.fileno(), 1):
                loop.remove_reader(sys.stdin.fileno())
                _log.warning("the parent process is gone; this worker drains and ends")
                stop()

        loop.add_reader(sys.stdin.fileno(), orphaned)
        let_stop_signals_in()

    def serving(self) -> None:
        """Tells the parent."""
        os.write(sys.stdout.fileno(), SERVING + b"\n")
