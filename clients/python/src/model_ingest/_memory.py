"""What a push remembers across runs: its request id and its ingest, so that the next run goes on with it.

One small file for each push, in the state directory of the XDG base directory specification
(`$XDG_STATE_HOME/model-ingest`, by default below `~/.local/state`). Keyed by everything that makes
it the same push: server, files (path, size, time, inode), name and options. All calls block: they
run in a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from model_ingest._source import Fingerprint

# Older ones are of no use: the server has given their uploads up.
_FORGET_SECONDS: Final = 30 * 86400


@dataclass(frozen=True, slots=True)
class Remembered:
    """A push that was begun. `ingest` is "" if its creation was never answered."""

    request_id: str
    ingest: str


class PushMemory:
    """The memory of one push. A state directory that cannot be used only costs the memory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of(
        cls, server: str, files: Sequence[tuple[Path, Fingerprint]], options: dict[str, Any]
    ) -> PushMemory:
        """The memory of the push with these properties."""
        facts = {
            "server": server,
            "files": [
                [str(path.absolute()), mark.device, mark.inode, mark.size_bytes, mark.modified_ns]
                for path, mark in files
            ],
            "options": options,
        }
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return cls(state_directory() / f"push-{key}.json")

    def load(self) -> Remembered | None:
        """What an earlier run left, if anything."""
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
            request_id, ingest = data["request_id"], data["ingest"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        # Anything else would be sent, refused, and keep this push from ever beginning anew.
        if not (isinstance(request_id, str) and request_id and isinstance(ingest, str)):
            return None
        return Remembered(request_id, ingest) if not ingest or ingest.startswith("ingests/") else None

    def save(self, remembered: Remembered) -> None:
        """Whole or not at all: a run that is killed in here leaves what was there before."""
        content = json.dumps({"request_id": remembered.request_id, "ingest": remembered.ingest})
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._forget_old_ones()
            descriptor, name = tempfile.mkstemp(prefix=".push-", dir=self._path.parent)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(content)
            Path(name).replace(self._path)

    def forget(self) -> None:
        """The push has ended."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _forget_old_ones(self) -> None:
        oldest = time.time() - _FORGET_SECONDS
        for path in self._path.parent.glob("*push-*"):
            # Each by itself: another push may have just forgotten its own.
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink(missing_ok=True)


def state_directory() -> Path:
    """Where pushes are remembered."""
    base = os.environ.get("XDG_STATE_HOME", "")
    # The specification: a relative path in the variable is ignored.
    if base.startswith("/"):
        return Path(base) / "model-ingest"
    try:
        return Path.home() / ".local" / "state" / "model-ingest"
    except RuntimeError:
        # A user without a home, as containers have them. Nothing can be kept in here.
        return Path(os.devnull) / "model-ingest"
