"""Services as processes of their own, with another program or tool around them than `serve`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import grpc

from tests.support.service import ROOT, ServiceProcess
from tests.support.stubs import IngestStub, ingest_stub

GIVE_UP_SECONDS = 60.0
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


class Child(ServiceProcess):
    """A service that `arguments` start; the default is the ordinary `serve`."""

    def __init__(
        self,
        variables: dict[str, str],
        log: Path,
        *arguments: str,
        cwd: Path = ROOT,
    ) -> None:
        super().__init__(variables, log)
        self._arguments = arguments or ("-m", "ingest_service", "serve")
        self._cwd = cwd

    async def spawn(self) -> asyncio.subprocess.Process:
        """Starts it and waits for nothing."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("INGEST_")}
        with self.log.open("ab") as sink:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, *self._arguments,
                cwd=self._cwd, env={**inherited, **self._variables}, stdout=sink, stderr=sink,
            )  # fmt: skip
        return self.process

    async def start(self, timeout_seconds: float = 120.0) -> None:
        process = await self.spawn()
        async with asyncio.timeout(timeout_seconds):
            while not await self._is_serving():
                if process.returncode is not None:
                    raise RuntimeError(f"the service ended: {self.log.read_text()[-3000:]}")
                await asyncio.sleep(0.05)

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.address, options=OWN_CONNECTION)

    def stop_for_now(self) -> None:
        """SIGSTOP: alive, holds all it holds, does nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def stands_still(self) -> bool:
        """After `stop_for_now`: no thread runs any more, but for calls that the system itself is at."""
        assert self.process is not None
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()
        # What follows the program's name, which is in parentheses and may hold anything.
        states = [(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads]
        return set(states) <= {"T", "D"}

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    async def ended(self) -> int:
        """Waits for its end; answers the exit code."""
        assert self.process is not None
        async with asyncio.timeout(GIVE_UP_SECONDS):
            return await self.process.wait()


def broken(way: str, variables: dict[str, str], log: Path) -> Child:
    """The service without one of its safeguards, see broken_server.py."""
    return Child({**variables, "BROKEN": way}, log, "-m", "tests.faults.broken_server")


def stub_of(channel: grpc.aio.Channel) -> IngestStub:
    return ingest_stub(channel)
