"""The service, which tells what it holds when asked: `python -m tests.faults.soak_server`.

At each SIGUSR1 it writes, as JSON into the file that SOAK_PROBE names, its asyncio tasks and what its uploads
hold. That can be seen from inside only; descriptors and locks are looked at from outside.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

from ingest_service.app import Service
from ingest_service.config import load_settings
from ingest_service.telemetry.logs import configure_logs


def held(service: Service) -> dict[str, object]:
    """What must be the same before and after any number of uploads."""
    tasks = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())
    return {
        "tasks": dict(sorted(tasks.items())),
        "sessions": service.uploads.active,
        "background": len(service.uploads._background),
        "held_bytes": service.uploads.held_bytes,
    }


async def main() -> None:
    probe = Path(os.environ.pop("SOAK_PROBE"))
    settings = load_settings()
    configure_logs(settings.log_level, settings.log_format)
    service = Service(settings)
    await service.start()

    def tell() -> None:
        unfinished = probe.with_suffix(".tmp")
        unfinished.write_text(json.dumps(held(service)))
        unfinished.rename(probe)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, tell)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await service.stop(0.0)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
