"""Several server processes on one PostgreSQL (and one SQLite file): the one at work is killed at each step.

Whichever takes over, the deployment ends once, and watchers that are connected to the others all along see
every event once. Breaks when: a lease is not taken over, two drive at once, or an end is recorded twice.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest, WatchIngestRequest

from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import MEBIBYTE, create_request, gguf, send, upload_messages
from tests.support.postgres import PostgresCluster
from tests.support.service import ServiceProcess, environment
from tests.support.stubs import IngestStub, ingest_stub

LEASE_SECONDS = 2
DATA = gguf(3 * MEBIBYTE)
#: A call of the target that stands still while the process dies, in the order of a deployment.
STEPS = {
    "version": Fault("stall", "version"),
    "head": Fault("stall", "blob_head"),
    "push": Fault("stall", "blob_post", at_bytes=MEBIBYTE),
    "show before create": Fault("stall", "show"),
    "create": Fault("stall", "create", after_line="parsing"),
    "create, the model is there": Fault("stall", "create", after_line="writing"),
    "tags": Fault("stall", "tags"),
}


class Watcher:
    """Watches through one process, and again after a broken stream, as the client does."""

    def __init__(self, stub: IngestStub, name: str) -> None:
        self._stub = stub
        self._name = name
        self.events: list[resources_pb2.Event] = []
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            after = self.events[-1].sequence if self.events else 0
            request = WatchIngestRequest(name=self._name, after_sequence=after)
            try:
                async for item in self._stub.WatchIngest(request, timeout=90):
                    if item.HasField("event"):
                        self.events.append(item.event)
                return
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE, error  # noqa: PT017 (bounded by `_run`)
                await asyncio.sleep(0.1)


async def started(
    stack: AsyncExitStack, variables: dict[str, str], log: Path
) -> tuple[ServiceProcess, IngestStub]:
    process = await stack.enter_async_context(ServiceProcess(variables, log))
    channel = grpc.aio.insecure_channel(process.address, options=[("grpc.use_local_subchannel_pool", 1)])
    await stack.enter_async_context(channel)
    return process, ingest_stub(channel)


async def killed_at(step: str, url: str, tmp_path: Path, emulator: OllamaEmulator, others: int) -> None:
    stall = emulator.faults.add(STEPS[step])
    variables = environment(
        tmp_path / "data", url, f"default={emulator.url}", lease_seconds=LEASE_SECONDS, sweep_seconds=3600
    )
    async with AsyncExitStack() as stack:
        worker, stub = await started(stack, variables, tmp_path / "worker.log")
        ingest = await stub.CreateIngest(create_request(DATA), timeout=30)
        await send(stub, upload_messages(ingest.files[0].name, DATA))
        await stall.wait_stalled(30)
        rest = [await started(stack, variables, tmp_path / f"{n}.log") for n in range(others)]
        watchers = [Watcher(other, ingest.name) for _, other in rest]
        assert await worker.kill(signal.SIGKILL) == -signal.SIGKILL
        stall.release()
        async with asyncio.timeout(90):
            await asyncio.gather(*(watcher.task for watcher in watchers))
        ended = await rest[0][1].GetIngest(GetIngestRequest(name=ingest.name), timeout=30)
    assert ended.state == resources_pb2.Ingest.STATE_READY
    for watcher in watchers:
        assert [event.sequence for event in watcher.events] == list(range(1, ended.last_sequence + 1))
    ready = [
        event
        for event in watchers[0].events
        if event.deployment_state.state == resources_pb2.Deployment.STATE_READY
    ]
    assert len(ready) == 1
    assert emulator.models["test"]


@pytest.mark.extended
@pytest.mark.parametrize("step", ["push", "create"])
async def test_two_processes_on_postgresql(
    step: str, postgres: PostgresCluster, tmp_path: Path, emulator: OllamaEmulator
) -> None:
    url = postgres.create_database(f"two_{step}", "migrated")
    await killed_at(step, url, tmp_path, emulator, others=1)


@pytest.mark.extended
async def test_two_processes_on_one_sqlite_file(
    sqlite_url: str, tmp_path: Path, emulator: OllamaEmulator
) -> None:
    await killed_at("create, the model is there", sqlite_url, tmp_path, emulator, others=1)


@pytest.mark.soak
@pytest.mark.parametrize("step", STEPS)
async def test_three_processes_on_postgresql(
    step: str, postgres: PostgresCluster, tmp_path: Path, emulator: OllamaEmulator
) -> None:
    url = postgres.create_database(f"three_{list(STEPS).index(step)}", "migrated")
    await killed_at(step, url, tmp_path, emulator, others=2)
