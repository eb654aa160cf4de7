"""A target that is back is used at once, however long its deployments were told to wait."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from model_ingest.v1.resources_pb2 import Ingest

from ingest_service import app
from ingest_service.forwarding import ForwardingSettings
from tests.conftest import StartService
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.rpc.scenes import Scene, until
from tests.support.files import create_request, gguf, send, upload_messages


async def test_a_target_that_is_back_is_used(
    start_service: StartService, emulator: OllamaEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = partial(ForwardingSettings, first_backoff_seconds=300.0, max_backoff_seconds=300.0)
    monkeypatch.setattr(app, "ForwardingSettings", partial(patient, probe_seconds=0.05))
    emulator.faults.add(Fault("reset", call="version", times=None))
    scene = Scene(await start_service(f"default={emulator.url}"), emulator)
    data = gguf(200_000, seed=3)
    ingest = await scene.running.ingests.CreateIngest(create_request(data))
    await send(scene.running.ingests, upload_messages(ingest.files[0].name, data))
    # The attempt, and at least one question after it.
    await until(lambda: len(emulator.calls.named("version")) >= 3)
    emulator.faults.clear()
    async with asyncio.timeout(20):
        ended = await scene.ended(ingest.name)
    assert ended.state == Ingest.STATE_READY
    assert ended.deployments[0].attempts == 2
