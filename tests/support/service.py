"""The service under test: in this process on a real socket, or as a process of its own that can be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ingest_service.app import Service
from ingest_service.config import Settings, load_settings
from tests.support import loop_guard
from tests.support.ports import ReservedPort
from tests.support.stubs import catalog_stub, ingest_stub

ROOT = Path(__file__).resolve().parent.parent.parent


def environment(data_dir: Path, database_url: str, targets: str = "", **settings: Any) -> dict[str, str]:
    """The INGEST_ variables of a test's service. `settings` are lower-case names without the prefix."""
    values = {"data_dir": data_dir, "database_url": database_url, "targets": targets, "listen": "127.0.0.1:0"}
    return {f"INGEST_{name.upper()}": str(value) for name, value in (values | settings).items()}


def settings_for(data_dir: Path, database_url: str, targets: str = "", **settings: Any) -> Settings:
    """The same, parsed."""
    return load_settings(environment(data_dir, database_url, targets, **settings))


class RunningService:
    """A service in this process, with stubs on a channel of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.service = Service(settings)
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.service.start()
        except BaseException:
            await self.service.stop(0.0)
            raise
        loop_guard.serving_began()
        self.address = f"127.0.0.1:{self.service.port}"
        self._channel = self.channel()
        self.ingests = ingest_stub(self._channel)
        self.catalog = catalog_stub(self._channel)
        self.health: Any = health_pb2_grpc.HealthStub(self._channel)
        return self

    def channel(self, options: Sequence[tuple[str, Any]] = ()) -> grpc.aio.Channel:
        """Another channel to it; the caller closes it."""
        # Without this, channels of one process share connections, and a test could cut another's.
        return grpc.aio.insecure_channel(
            self.address, options=[("grpc.use_local_subchannel_pool", 1), *options]
        )

    async def __aexit__(self, *exc: object) -> None:
        if self._channel is not None:
            await self._channel.close()
        loop_guard.serving_ended()
        await self.service.stop(0.0)


class ServiceProcess:
    """`python -m ingest_service serve` as a child; `async with`, or `start` and `kill`."""

    def __init__(self, variables: dict[str, str], log: Path) -> None:
        # Known before the start, and the same over kills and new starts: clients come back to it.
        self._reserved = ReservedPort()
        self.port, self.address = self._reserved.port, self._reserved.address
        self._variables = {**variables, "INGEST_LISTEN": self.address}
        self.log = log
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, timeout_seconds: float = 120.0) -> None:
        """Starts it and waits until Health says SERVING."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("INGEST_")}
        with self.log.open("ab") as sink:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "ingest_service", "serve",
                cwd=ROOT, env={**inherited, **self._variables}, stdout=sink, stderr=sink,
            )  # fmt: skip
        async with asyncio.timeout(timeout_seconds):
            while not await self._is_serving():
                if self.process.returncode is not None:
                    raise RuntimeError(f"the service ended: {self.log.read_text()[-3000:]}")
                await asyncio.sleep(0.05)

    async def _is_serving(self) -> bool:
        try:
            async with grpc.aio.insecure_channel(
                self.address, options=[("grpc.use_local_subchannel_pool", 1)]
            ) as channel:
                check: Any = health_pb2_grpc.HealthStub(channel)
                answer = await check.Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def kill(self, number: int = signal.SIGKILL) -> int:
        """Sends a signal and waits for the end; answers the exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.process is not None and self.process.returncode is None:
            await self.kill()
        # At once, for a fixture's object outlives its test; who kills and starts anew does not come here.
        self._reserved.close()
