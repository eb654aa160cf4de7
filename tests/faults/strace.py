"""Faults at the Nth system call: strace attached to a service that is SERVING."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

STRACE = "/usr/bin/strace"


def require_strace() -> None:
    """As root on Linux a missing strace is a failure; elsewhere the fault class is skipped, with a reason."""
    if shutil.which(STRACE):
        return
    if os.geteuid() == 0 and os.uname().sysname == "Linux":
        pytest.fail("strace is not installed: apt-get install strace")
    pytest.skip("strace is not there")


class Strace:
    """`async with Strace(pid, "fdatasync", "error=EIO", 2, log)`: that fault, at each thread's 2nd such call.

    strace counts for each thread by itself; the faults that were put in are read from its log.
    """

    def __init__(self, pid: int, call: str, fault: str, number: int, log: Path) -> None:
        self._pid = pid
        self._call = call
        self._fault = fault
        self._number = number
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._said: asyncio.Task[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            STRACE, "-f", "-y", "-p", str(self._pid), "-o", str(self._log),
            "-e", f"trace={self._call}", "-e", f"inject={self._call}:{self._fault}:when={self._number}",
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stderr is not None
        async with asyncio.timeout(30):
            first = await self._process.stderr.readline()
        assert b"attached" in first, first
        self._said = asyncio.create_task(self._process.stderr.read())
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._process is not None
        assert self._said is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            # It sometimes waits for ever for a process that it has just killed; nobody reaps that one then.
            self._process.kill()
            await self._process.wait()
        await self._said

    def calls(self) -> list[str]:
        """Every call that was seen, with its result, in order; one that never returned has the result `?`."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        whole: list[str] = []
        begun: dict[str, str] = {}
        for line in lines:
            thread = line.partition(" ")[0]
            if line.endswith("<unfinished ...>"):
                begun[thread] = line.removesuffix("<unfinished ...>")
                continue
            resumed = re.search(r"<\.\.\. \w+ resumed>(.*)", line)
            whole.append(begun.pop(thread, "") + resumed[1] if resumed else line)
        return whole + [f"{line}) = ?" for line in begun.values()]

    @property
    def injected(self) -> int:
        """How many faults were put in."""
        return sum(1 for line in self.calls() if "(INJECTED)" in line or "killed by SIGKILL" in line)

    def broken_calls(self) -> list[str]:
        """The calls that a fault was put into; one that the process was killed in has no result."""
        return [line for line in self.calls() if "(INJECTED)" in line or line.endswith("= ?")]

    def failed_syncs(self) -> set[str]:
        """The partials whose sync was made to fail."""
        return {path for path, failed in self._partial_syncs() if failed}

    def syncs_after_failure(self) -> dict[str, int]:
        """How often a partial was synced again after a sync of it had failed; empty is right."""
        failed: set[str] = set()
        again: dict[str, int] = {}
        for path, has_failed in self._partial_syncs():
            if path in failed:
                again[path] = again.get(path, 0) + 1
            if has_failed:
                failed.add(path)
        return again

    def _partial_syncs(self) -> Iterator[tuple[str, bool]]:
        """Each sync of a partial, and whether it was made to fail."""
        for line in self.calls():
            found = re.search(r"f(?:data)?sync\(\d+<([^>]*\.part)[^>]*>", line)
            if found is not None:
                yield found[1], "(INJECTED)" in line
