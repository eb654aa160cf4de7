"""The parent of workers: its port, what it does when one ends, how it ends itself.

Breaks when: the port can be had twice, a crash is not followed by a new start, a wrong setting is tried again
and again, an exit code or a signal is lost, or a worker that hangs is waited for without end.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ingest_service.workers import Supervisor, reserve
from tests.support.service import ROOT

#: A worker that notes its arguments, says that it serves, and ends with its own number on SIGTERM.
_WORKER = """
import os, pathlib, signal, sys, time
number = int(sys.argv[sys.argv.index("--worker") + 1]) if "--worker" in sys.argv else 0
with open({notes!r}, "a") as notes:
    notes.write(" ".join(sys.argv[1:]) + chr(10))
{before}
if "--prepare" in sys.argv:
    sys.exit({prepared})
signal.signal(signal.SIGTERM, lambda *_: os._exit({code}))
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
print("serving", flush=True)
time.sleep(600)
"""


def supervisor(
    tmp_path: Path, count: int = 2, *, before: str = "", code: str = "number", prepared: int = 0
) -> tuple[Supervisor, Path]:
    """One with such workers, and where they note their arguments."""
    notes = tmp_path / "notes"
    notes.touch()
    script = _WORKER.format(notes=str(notes), before=before, code=code, prepared=prepared)
    return Supervisor(("-c", script), count, listen="127.0.0.1:9", drain_seconds=1), notes


async def until(notes: Path, count: int) -> list[str]:
    """The notes, once there are so many."""
    while len(lines := notes.read_text().splitlines()) < count:
        await asyncio.sleep(0.01)
    return lines


async def serving(parent: Supervisor) -> None:
    while not parent._all_served:
        await asyncio.sleep(0.01)


def test_a_reserved_port_is_its_holders_alone() -> None:
    first = reserve("127.0.0.1:0")
    with first.holder:
        assert first.listen == f"127.0.0.1:{first.port}"
        assert first.port > 0
        with pytest.raises(OSError, match="in use"):
            reserve(first.listen)
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", first.port))
        # Bound, and nothing more: connections are for the workers.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", first.port))
        with socket.create_server(("127.0.0.1", first.port), reuse_port=True):
            socket.create_connection(("127.0.0.1", first.port)).close()


def test_a_port_that_somebody_listens_on_is_not_reserved() -> None:
    with (
        socket.create_server(("127.0.0.1", 0), reuse_port=True) as other,
        pytest.raises(OSError, match="in use"),
    ):
        reserve(f"127.0.0.1:{other.getsockname()[1]}")


@pytest.mark.extended
def test_the_parent_loads_no_grpc() -> None:
    script = "import sys, ingest_service.__main__; print({'grpc', 'google.protobuf'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == "set()"


async def test_it_prepares_once_and_ends_with_the_worst_code(tmp_path: Path) -> None:
    parent, notes = supervisor(tmp_path, 3)
    running = asyncio.create_task(parent.run())
    await serving(parent)
    parent._stop(signal.SIGTERM)
    assert await running == 3
    prepare, *workers = notes.read_text().splitlines()
    assert prepare == "--listen 127.0.0.1:9 --prepare"
    assert sorted(workers) == [f"--listen 127.0.0.1:9 --worker {n} --prepared" for n in (1, 2, 3)]


async def test_a_start_that_cannot_be_prepared_starts_no_worker(tmp_path: Path) -> None:
    parent, notes = supervisor(tmp_path, prepared=2)
    assert await parent.run() == 2
    assert len(notes.read_text().splitlines()) == 1


async def test_a_worker_that_crashes_is_started_again_and_recovers_itself(tmp_path: Path) -> None:
    """The second start is told nothing of what was prepared: it looks after what the first left."""
    crash = f"""
if number == 1 and not os.path.exists({str(tmp_path / "crashed")!r}):
    pathlib.Path({str(tmp_path / "crashed")!r}).touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    parent, notes = supervisor(tmp_path, before=crash, code="0")
    running = asyncio.create_task(parent.run())
    lines = await until(notes, 4)
    await serving(parent)
    parent._stop()
    assert await running == 0, "the crash is mended: what counts is how the last ones ended"
    assert "--listen 127.0.0.1:9 --worker 1" in lines


async def test_a_wrong_setting_ends_all_of_them_at_once(tmp_path: Path) -> None:
    parent, notes = supervisor(tmp_path, before="if number == 1: sys.exit(2)", code="0")
    assert await parent.run() == 2
    assert sum("--worker 1" in line for line in notes.read_text().splitlines()) == 1


async def test_a_signal_between_start_and_handler_is_not_lost(tmp_path: Path) -> None:
    """The worker ends by its own handler, with its own code, however early the signal comes."""
    parent, notes = supervisor(tmp_path, 1, code="7", before="time.sleep(0.3 if number else 0)")
    running = asyncio.create_task(parent.run())
    await until(notes, 2)
    parent._stop()
    assert await running == 7


async def test_a_worker_that_does_not_end_is_killed(tmp_path: Path) -> None:
    parent, _ = supervisor(tmp_path, 1)
    parent._end_seconds = 0.2
    running = asyncio.create_task(parent.run())
    await serving(parent)
    parent._running[1].send_signal(signal.SIGSTOP)
    parent._stop()
    assert await running == 128 + signal.SIGKILL
