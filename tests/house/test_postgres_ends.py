"""The PostgreSQL of a test run ends with the run, however the run ends.

Breaks when: a pytest that is killed leaves its server running or its directory in place.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.house.source import ROOT

_PROGRAM = """
import sys, tempfile
from pathlib import Path
from tests.support.postgres import PostgresCluster

directory = Path(tempfile.mkdtemp(prefix="model-ingest-postgres-"))
print(directory, flush=True)
cluster = PostgresCluster(directory)
cluster.start()
print((directory / "data" / "postmaster.pid").read_text().split()[0], flush=True)
sys.stdin.read()
"""


@pytest.mark.extended
@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.extended), signal.SIGKILL])
def test_a_killed_run_leaves_no_postgresql(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        directory, server = Path(run.stdout.readline().strip()), int(run.stdout.readline())
        assert psutil.pid_exists(server)
        run.send_signal(number)
    deadline = time.monotonic() + 60
    while psutil.pid_exists(server) or directory.exists():
        assert time.monotonic() < deadline, "the server or its directory is still there"
        time.sleep(0.05)
