"""Runs the tests beside a load that burns every processor: `make test`, or named tests many times.

    python scripts/test_beside_load.py                         # `make test`, five times
    python scripts/test_beside_load.py --times 50 tests/x/test_y.py::test_z

With two burning loops and the suite's two workers the load is 4. Prints seconds and verdict of each run;
exit code 1 if one failed. The load ends with this program, whatever happens to it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BURNING_LOOPS = 2
#: Between two looks of a loop at whether this program still lives.
LOOK_SECONDS = 0.5


def burn(parent: int) -> None:
    """Keeps one processor busy for as long as `parent` lives."""
    while os.getppid() == parent:
        end = time.monotonic() + LOOK_SECONDS
        while time.monotonic() < end:
            pass


def command_of(tests: list[str], times: int) -> list[str]:
    """The whole default tier, or the named tests in one process, `times` times each, of whichever tier."""
    if not tests:
        return ["make", "--no-print-directory", "test"]
    alone = ["-m", "pytest", "-q", "-n", "0", "-m", "not real_ollama", "--times", str(times)]
    return [sys.executable, *alone, *tests]


def run_once(number: int, command: list[str]) -> bool:
    """One line about it; what it printed follows if it failed."""
    started = time.monotonic()
    result = subprocess.run(  # noqa: S603
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    seconds = time.monotonic() - started
    lines = result.stdout.splitlines() or [""]
    verdict = "passed" if result.returncode == 0 else f"FAILED with {result.returncode}"
    say(f"run {number}: {verdict}, {seconds:.0f} s, load {os.getloadavg()[0]:.1f}: {lines[-1]}")
    if result.returncode:
        say(result.stdout)
    return result.returncode == 0


def say(text: str) -> None:
    """To stdout, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Starts the load, runs, ends the load."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("tests", nargs="*", help="test ids or files; none: `make test`")
    given = parser.parse_args()
    processes = get_context("spawn")
    load = [processes.Process(target=burn, args=(os.getpid(),), daemon=True) for _ in range(BURNING_LOOPS)]
    command, runs = command_of(given.tests, given.times), 1 if given.tests else given.times
    passed = 0
    try:
        for process in load:
            process.start()
        for number in range(1, runs + 1):
            passed += run_once(number, command)
    finally:
        for process in load:
            process.kill()
            process.join()
    say(f"{passed} of {runs} runs passed")
    return 0 if passed == runs else 1


if __name__ == "__main__":
    raise SystemExit(main())
