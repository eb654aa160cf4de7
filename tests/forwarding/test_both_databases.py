"""The ways a deployment ends, on SQLite and on PostgreSQL; a stalled target beside a service that works."""

from __future__ import annotations

import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest

from ingest_service.vocabulary.states import IngestState
from tests.conftest import StartService
from tests.forwarding.world import World
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import MEBIBYTE, create_request, digest, gguf, push, send, upload_messages

WAYS = {
    "well": ([], "PUSHING CREATING READY", IngestState.READY),
    "retried": (
        [Fault("respond", "version", status=503), Fault("reset", "create")],
        "PENDING PUSHING CREATING PENDING PUSHING CREATING READY",
        IngestState.READY,
    ),
    "refused": (
        [Fault("error_line", "create", after_line=1, body="no \x00 thanks")],
        "PUSHING CREATING FAILED",
        IngestState.FAILED,
    ),
    "settled": ([Fault("reset", "create", takes_effect=True)], "PUSHING CREATING READY", IngestState.READY),
    "missing": (
        [Fault("vanish_blob", "create")],
        "PUSHING CREATING PUSHING CREATING READY",
        IngestState.READY,
    ),
}


@pytest.mark.extended_unless("postgresql", "sqlite-settled")
@pytest.mark.parametrize("way", WAYS)
async def test_a_deployment_ends_the_same_on_both(
    both_worlds: World, emulator: OllamaEmulator, way: str
) -> None:
    faults, states, state = WAYS[way]
    for fault in faults:
        emulator.faults.add(fault)
    ingest = await both_worlds.forwarded(gguf(MEBIBYTE))
    assert ingest.state is state
    assert await both_worlds.states(ingest.id) == states


async def test_others_upload_while_a_target_is_stalled_in_create(
    start_service: StartService, emulator: OllamaEmulator
) -> None:
    stall = emulator.faults.add(Fault("stall", "create", after_line=1))
    service = await start_service(f"default={emulator.url}", lease_seconds=1)
    first, second = gguf(MEBIBYTE, seed=1), gguf(8 * MEBIBYTE, seed=2)
    stuck = await service.ingests.CreateIngest(create_request(first, "stuck"))
    await send(service.ingests, upload_messages(stuck.files[0].name, first))
    await stall.wait_stalled()
    ingest = await push(service.ingests, second, "free", store_only=True)
    assert ingest.state == resources_pb2.Ingest.STATE_STORED
    assert ingest.files[0].sha256 == digest(second)
    now = await service.ingests.GetIngest(GetIngestRequest(name=stuck.name))
    assert now.deployments[0].state == resources_pb2.Deployment.STATE_CREATING
    stall.release()
