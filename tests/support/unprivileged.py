"""A program without root's right to pass over permissions; for a user that is not root: as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tests.support.service import ROOT

#: Drops CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER for good, then becomes the program.
_DROP = (
    "import ctypes, os, sys; libc = ctypes.CDLL(None, use_errno=True)\n"
    "for capability in (1, 2, 3):\n"
    "    if libc.prctl(24, capability, 0, 0, 0): sys.exit(f'prctl: {ctypes.get_errno()}')\n"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def unprivileged(program: Sequence[str]) -> list[str]:
    """The command that runs it."""
    return [*([sys.executable, "-I", "-c", _DROP] if os.geteuid() == 0 else []), *program]


def run_service(
    command: str, variables: Mapping[str, str], *more: str, is_privileged: bool = True
) -> subprocess.CompletedProcess[str]:
    """`python -m ingest_service COMMAND`, to its end."""
    program = [sys.executable, "-m", "ingest_service", command, *more]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("INGEST_")}
    return subprocess.run(
        program if is_privileged else unprivileged(program),
        cwd=ROOT, env={**inherited, **variables}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
