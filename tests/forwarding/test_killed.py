"""A service killed with -9 in the middle of a deployment: the next one takes over, and asks `show` first."""

from __future__ import annotations

import signal
from pathlib import Path

import grpc
import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest, WatchIngestRequest

from tests.forwarding.world import calls
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import MEBIBYTE, create_request, gguf, send, upload_messages
from tests.support.service import ServiceProcess, environment
from tests.support.stubs import IngestStub, ingest_stub

READY = resources_pb2.Deployment.STATE_READY


async def _upload(process: ServiceProcess, data: bytes) -> str:
    async with grpc.aio.insecure_channel(process.address) as channel:
        stub = ingest_stub(channel)
        ingest = await stub.CreateIngest(create_request(data), timeout=20)
        await send(stub, upload_messages(ingest.files[0].name, data))
        return ingest.name


async def _events(stub: IngestStub, name: str) -> list[resources_pb2.Event]:
    watch = stub.WatchIngest(WatchIngestRequest(name=name), timeout=60)
    return [item.event async for item in watch if item.HasField("event")]


@pytest.mark.extended
@pytest.mark.parametrize(
    ("fault", "before", "after", "database_url"),
    [
        (
            Fault("stall", "blob_post", at_bytes=10),
            "version head post",
            "version head post show create show tags",
            "sqlite",
        ),
        (
            Fault("stall", "create", after_line="parsing"),
            "version head post show create",
            "show version head show create show tags",
            "postgresql",
        ),
        # Era A: the model is written once `writing manifest` was taken, client or no client.
        (
            Fault("stall", "create", after_line="writing"),
            "version head post show create",
            "show tags",
            "sqlite",
        ),
    ],
    indirect=["database_url"],
    ids=["in PUSHING", "in CREATING, absent", "in CREATING, there"],
)
async def test_a_killed_service_is_taken_over(
    tmp_path: Path, database_url: str, emulator: OllamaEmulator, fault: Fault, before: str, after: str
) -> None:
    stall = emulator.faults.add(fault)
    variables = environment(
        tmp_path / "data", database_url, f"default={emulator.url}", lease_seconds=1, log_level="INFO"
    )
    process = ServiceProcess(variables, tmp_path / "service.log")
    try:
        await process.start(60)
        name = await _upload(process, gguf(16 * MEBIBYTE))
        await stall.wait_stalled(30)
        assert await process.kill(signal.SIGKILL) == -signal.SIGKILL
        assert calls(emulator) == before
        emulator.calls.clear()
        stall.release()
        await process.start(60)
        async with grpc.aio.insecure_channel(
            process.address, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            stub = ingest_stub(channel)
            events = await _events(stub, name)
            ingest = await stub.GetIngest(GetIngestRequest(name=name), timeout=10)
        await process.kill(signal.SIGTERM)
    finally:
        if process.process is not None:
            await process.kill()
    assert ingest.state == resources_pb2.Ingest.STATE_READY
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    ready = [e for e in events if e.HasField("deployment_state") and e.deployment_state.state == READY]
    assert len(ready) == 1
    assert calls(emulator) == after
    assert list(emulator.models) == ["test:latest"]
