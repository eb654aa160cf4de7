"""Another model under our name is never taken for ours, however the answer to our create was lost."""

from __future__ import annotations

import asyncio

from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest

from tests.conftest import StartService
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import create_request, digest, gguf, push, send, upload_messages


async def test_a_newer_ingest_of_the_name_is_not_the_older_ones_success(
    start_service: StartService, emulator: OllamaEmulator
) -> None:
    service = await start_service(f"default={emulator.url}")
    older, newer = gguf(1000, seed=1), gguf(1000, seed=2)
    emulator.faults.add(Fault("end_early", "create", after_line="parsing GGUF"))
    first = await service.ingests.CreateIngest(create_request(older, "same"))
    await send(service.ingests, upload_messages(first.files[0].name, older))
    while (await service.ingests.GetIngest(GetIngestRequest(name=first.name))).deployments[0].state != (
        resources_pb2.Deployment.STATE_PENDING
    ) or not emulator.calls.named("create"):
        await asyncio.sleep(0.01)
    await push(service.ingests, newer, "same")
    while not (ended := await service.ingests.GetIngest(GetIngestRequest(name=first.name))).done:
        await asyncio.sleep(0.05)
    # Superseded: it neither takes the newer one's model for its own nor overwrites it.
    assert ended.state == resources_pb2.Ingest.STATE_STORED
    assert ended.deployments[0].state == resources_pb2.Deployment.STATE_SUPERSEDED
    assert ended.deployments[0].layer_digest == ""
    assert [layer.digest for layer in emulator.models["same"].of_kind("model")] == [digest(newer)]
