"""What is set for the process as a whole."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import resource
from ingest_service.process import allow_many_descriptors
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
now = allow_many_descriptors()
assert now == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
print(now, hard)
"""


def test_a_low_soft_limit_of_open_files_is_raised() -> None:
    run = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    now, hard = map(int, run.stdout.split())
    assert now == (65_536 if hard < 0 else min(hard, 65_536))
