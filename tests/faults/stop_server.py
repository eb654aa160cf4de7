"""The service, stopped by itself (SIGSTOP) while it publishes: `python -m tests.faults.stop_server`.

STOP_AT: `rename` (before the file gets its final name) or `dirsync` (after it, before it is durable). The
process holds its locks until somebody sends SIGCONT. LOCK_WAIT_SECONDS, for one that comes across it: how
long a publisher waits for another, instead of its usual 10 s.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from ingest_service.app import Service
from ingest_service.config import load_settings
from ingest_service.storage import local, posix
from ingest_service.telemetry.logs import configure_logs


def stop_before(owner: Any, name: str, is_step: Any) -> None:
    real = getattr(owner, name)

    def call(path: Path, *rest: Any) -> Any:
        if is_step(path):
            os.write(2, b"STOPPED\n")
            os.kill(os.getpid(), signal.SIGSTOP)
            # The signal may be taken by another thread: this one must not slip on meanwhile.
            time.sleep(0.3)
        return real(path, *rest)

    setattr(owner, name, call)


async def main() -> None:
    step = os.environ.pop("STOP_AT", "")
    local._LOCK_WAIT_SECONDS = float(os.environ.pop("LOCK_WAIT_SECONDS", local._LOCK_WAIT_SECONDS))
    settings = load_settings()
    configure_logs(settings.log_level, settings.log_format)
    service = Service(settings)
    await service.start()
    if step == "rename":
        stop_before(Path, "rename", lambda path: path.suffix == ".part")
    elif step:
        stop_before(posix, "sync_directory", lambda path: path.name == "blobs")
    await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
