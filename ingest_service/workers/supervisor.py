"""Starts the workers, starts again what crashed, ends them all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence

from ingest_service.workers.child import SERVING, STOP_SIGNALS

_log = logging.getLogger(__name__)

_WRONG_USE = 2
_FIRST_DELAY_SECONDS = 0.2
_MAX_DELAY_SECONDS = 30.0
#: A worker that served for so long begins with short delays again.
_STEADY_SECONDS = 60.0
#: What a drain may take beyond INGEST_DRAIN_SECONDS, before a worker is killed.
_CLEAN_UP_SECONDS = 30.0


class Supervisor:
    """Runs `command` with `--prepare` once, then `count` of it with `--worker N`. Use it once.

    `command` is what comes after the interpreter. Workers are new processes with a program of their own
    (no fork: grpc's threads and locks would not survive one), and inherit environment and stderr.
    """

    def __init__(self, command: Sequence[str], count: int, *, listen: str, drain_seconds: float) -> None:
        self._command = (sys.executable, *command)
        self._count = count
        self._listen = listen
        self._end_seconds = drain_seconds + _CLEAN_UP_SECONDS
        self._stopping = asyncio.Event()
        self._running: dict[int, Process] = {}
        self._serving: set[int] = set()
        self._all_served = False

    async def run(self) -> int:
        """The worst exit code of the workers, once a SIGTERM or SIGINT has ended them all."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop, number)
        code = await self._prepare()
        if code or self._stopping.is_set():
            return code
        ends = await asyncio.gather(*(self._keep(number) for number in range(1, self._count + 1)))
        _log.info("all workers have ended", extra={"exit_codes": ",".join(map(str, ends))})
        return max(ends)

    def _stop(self, number: int = signal.SIGTERM) -> None:
        """Every worker drains; what was not started yet is not started."""
        self._stopping.set()
        for process in self._running.values():
            _send(process, number)

    async def _prepare(self) -> int:
        """Schema, identity of the store, and what a crash left: once, not by every worker."""
        process = await self._started(0, "--prepare")
        return await self._end_of(0, process)

    async def _keep(self, number: int) -> int:
        """One worker after the other; the exit code of the last."""
        failures = 0
        first: tuple[str, ...] = ("--prepared",)
        while True:
            began_seconds = time.monotonic()
            process = await self._started(number, "--worker", str(number), *first)
            telling = asyncio.create_task(self._hear(number, process))
            code = await self._end_of(number, process)
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            self._serving.discard(number)
            if self._stopping.is_set():
                return code
            if code == _WRONG_USE and not self._all_served:
                # It has said why. The same would happen again, to it and to the others.
                self._stop()
                return code
            failures = 1 if time.monotonic() - began_seconds > _STEADY_SECONDS else failures + 1
            delay_seconds = min(_FIRST_DELAY_SECONDS * 2 ** min(failures - 1, 20), _MAX_DELAY_SECONDS)
            _log.error(
                "a worker ended by itself; it is started again",
                extra={"worker": number, "exit_code": code, "delay_seconds": delay_seconds},
            )
            # A later one looks after what this one left, as every boot does.
            first = ()
            try:
                await asyncio.wait_for(self._stopping.wait(), delay_seconds)
            except TimeoutError:
                continue
            return 0

    async def _started(self, number: int, *arguments: str) -> Process:
        # Inherited by the worker, which lets them in once it can handle them.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, "--listen", self._listen, *arguments,
                stdin=PIPE, stdout=DEVNULL if number == 0 else PIPE,
            )  # fmt: skip
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        self._running[number] = process
        if self._stopping.is_set():
            _send(process, signal.SIGTERM)
        return process

    async def _end_of(self, number: int, process: Process) -> int:
        """As a shell counts it: a signal is 128 and its number."""
        ending = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({ending, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        done, _ = await asyncio.wait({ending}, timeout=self._end_seconds)
        if not done:
            _log.error("a worker does not end; it is killed", extra={"worker": number})
            _send(process, signal.SIGKILL)
        code = await ending
        return code if code >= 0 else 128 - code

    async def _hear(self, number: int, process: Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if line.strip() != SERVING:
                continue
            self._serving.add(number)
            if len(self._serving) == self._count and not self._all_served:
                self._all_served = True
                port = int(self._listen.rpartition(":")[2])
                _log.info("serving", extra={"listen": self._listen, "port": port, "workers": self._count})


def _send(process: Process, number: int) -> None:
    # It may have ended by itself meanwhile.
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
