"""The command `model-ingest`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

#: As a shell has it for a program that ended by SIGINT.
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code (docs/client.md has the table). No `arguments`: the process's own."""
    # grpc's C core logs every refused connection to stderr; our own message says it once.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from model_ingest.cli._allocator import keep_freed_memory
        from model_ingest.cli._run import run

        keep_freed_memory()
        return run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        # `run` says what was interrupted. Before it, while all of it is imported, nothing was begun.
        return _INTERRUPTED
