"""The service, killed by itself (SIGKILL) at one named step: `python -m tests.faults.killable_server`.

FAULT_POINT is `<step>:<number>:<before|after>`: the number-th time the step is come by after SERVING (or,
with FAULT_FROM=boot, from the start on). The steps are wrapped from outside: production code has no hooks.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ingest_service.app import Service
from ingest_service.config import load_settings
from ingest_service.ingests.file_moves import FileMoves
from ingest_service.ingests.pipeline import ChunkPipeline
from ingest_service.ingests.service import Ingests
from ingest_service.ingests.session import UploadSession
from ingest_service.ingests.taking_in import TakingIn
from ingest_service.storage import ImportFolder, LocalBlobStore, adopting, posix
from ingest_service.storage.local_partial import LocalPartial
from ingest_service.telemetry.logs import configure_logs
from tests.support import loop_guard

#: Step -> in what order an upload comes by it.
STEPS = (
    "create", "write", "sync", "checkpoint", "verifying", "drain", "publishing", "rename", "dirsync",
    "publish", "stored", "complete",
)  # fmt: skip


#: The same of an import, beside those.
IMPORT_STEPS = (
    "made", "claim", "adopt", "shared", "chunk", "look", "away", "end", "aside_gone", "source_gone",
)  # fmt: skip


class KillSwitch:
    """Counts steps; at the chosen one the process is gone."""

    def __init__(self, point: str, *, armed: bool) -> None:
        self.step, number, self.phase = point.split(":")
        assert self.step in STEPS + IMPORT_STEPS
        assert self.phase in {"before", "after"}
        self.number = int(number)
        self.armed = armed
        self._seen: Counter[str] = Counter()

    def come_by(self, step: str, phase: str) -> None:
        if not self.armed or step != self.step:
            return
        self._seen[phase] += 1
        if phase == self.phase and self._seen[phase] == self.number:
            os.write(2, f"KILLED AT {step}:{self.number}:{phase}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, owner: Any, name: str, step: Callable[..., str | None]) -> None:
        """`step(*arguments)` names the step of a call; None: not one."""
        real = getattr(owner, name)

        @functools.wraps(real)
        async def asynchronous(*arguments: Any, **values: Any) -> Any:
            here = step(*arguments)
            if here:
                self.come_by(here, "before")
            answer = await real(*arguments, **values)
            if here:
                self.come_by(here, "after")
            return answer

        @functools.wraps(real)
        def synchronous(*arguments: Any, **values: Any) -> Any:
            here = step(*arguments)
            if here:
                self.come_by(here, "before")
            answer = real(*arguments, **values)
            if here:
                self.come_by(here, "after")
            return answer

        setattr(owner, name, asynchronous if asyncio.iscoroutinefunction(real) else synchronous)


def install(switch: KillSwitch) -> None:
    """Puts the switch around every named step."""
    for owner, name, step in (
        (LocalBlobStore, "create_partial", "create"),
        (LocalPartial, "write", "write"),
        (LocalPartial, "sync", "sync"),
        (FileMoves, "checkpoint", "checkpoint"),
        (ChunkPipeline, "drain", "drain"),
        (LocalBlobStore, "publish", "publish"),
        (FileMoves, "stored", "stored"),
        (UploadSession, "complete", "complete"),
        (Ingests, "create", "made"),
        (ImportFolder, "claim", "claim"),
        (LocalBlobStore, "adopt", "adopt"),
        (adopting, "_locked", "shared"),
        (UploadSession, "chunk", "chunk"),
        (TakingIn, "_check_unchanged", "look"),
        (ImportFolder, "take_away", "away"),
        (ImportFolder, "end", "end"),
        (ImportFolder, "_remove_source", "source_gone"),
    ):
        switch.wrap(owner, name, lambda *_, step=step: step)
    # FileMoves.move(self, file, state)
    rows = {"VERIFYING": "verifying", "PUBLISHING": "publishing"}
    switch.wrap(FileMoves, "move", lambda _self, _file, state, *_: rows.get(str(state)))
    switch.wrap(Path, "rename", lambda path, *_: "rename" if path.suffix == ".part" else None)
    switch.wrap(Path, "unlink", lambda path, *_: "aside_gone" if path.suffix == ".source" else None)
    switch.wrap(posix, "sync_directory", lambda path: "dirsync" if path.name == "blobs" else None)


async def main() -> None:
    switch = KillSwitch(os.environ.pop("FAULT_POINT"), armed=os.environ.pop("FAULT_FROM", "") == "boot")
    install(switch)
    settings = load_settings()
    configure_logs(settings.log_level, settings.log_format)
    service = Service(settings)
    await service.start()
    switch.armed = True
    await asyncio.Event().wait()


if __name__ == "__main__":
    loop_guard.install_from_environment()
    sys.exit(asyncio.run(main()))
