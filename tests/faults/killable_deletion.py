"""The service, killed by itself at one step of a DeleteModel: `python -m tests.faults.killable_deletion`.

FAULT_POINT is `<step>:<before|after>`; the steps are wrapped from outside, as in `killable_server`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from ingest_service.app import Service
from ingest_service.config import load_settings
from ingest_service.database.blob_queries import BlobQueries
from ingest_service.database.ingest_queries import IngestQueries
from ingest_service.forwarding.ollama import OllamaClient
from ingest_service.forwarding.turn import TargetTurn
from ingest_service.storage import LocalBlobStore
from ingest_service.telemetry.logs import configure_logs

#: Step -> what is wrapped, in the order in which a deletion comes by.
STEPS: dict[str, tuple[Any, str]] = {
    "turn": (TargetTurn, "__aenter__"),
    "target": (OllamaClient, "delete"),
    "lock": (IngestQueries, "lock_in_catalog"),
    "mark": (BlobQueries, "mark_deleting"),
    "bytes": (LocalBlobStore, "remove_blob"),
    "row": (BlobQueries, "remove_deleting"),
}


def install(point: str) -> None:
    """One kill, at that point."""
    step, phase = point.split(":")
    owner, name = STEPS[step]
    real = getattr(owner, name)

    async def wrapped(*arguments: Any, **values: Any) -> Any:
        # A deployment takes turns too.
        is_ours = step != "turn" or arguments[0]._owner.startswith("delete/")
        if is_ours and phase == "before":
            _die(point)
        answer = await real(*arguments, **values)
        if is_ours:
            _die(point)
        return answer

    setattr(owner, name, wrapped)


def _die(point: str) -> None:
    os.write(2, f"KILLED AT {point}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    point = os.environ.pop("FAULT_POINT")
    settings = load_settings()
    configure_logs(settings.log_level, settings.log_format)
    service = Service(settings)
    await service.start()
    install(point)
    await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
