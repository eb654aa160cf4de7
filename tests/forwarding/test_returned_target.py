"""A target that is back is used at once, however long its deployments were told to wait."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from model_ingest.v1.resources_pb2 import Ingest

from ingest_service import app
from ingest_service.forwarding import ForwardingSettings
from ingest_service.forwarding.breaker import Breaker
from ingest_service.forwarding.probes import Probes
from ingest_service.vocabulary.states import IngestState
from tests.conftest import StartService
from tests.forwarding.world import World
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.rpc.scenes import Scene, until
from tests.support.files import create_request, gguf, send, upload_messages

_HOUR: dict[str, Any] = {"first_backoff_seconds": 3600.0, "max_backoff_seconds": 3600.0}


async def _waiting_without_a_worker(world: World) -> str:
    """An ingest that waits an hour for its next try; its worker has ended."""
    ingest_id = await world.stored(gguf())
    worker = world.worker(**_HOUR, probe_seconds=3600.0)
    await world.until(ingest_id, lambda ingest: ingest.deployments[0].next_attempt_at is not None)
    await worker.stop()
    return ingest_id


async def test_a_target_that_came_back_while_there_was_no_process_is_used(
    world: World, emulator: OllamaEmulator
) -> None:
    emulator.faults.add(Fault("reset", call="version", times=None))
    ingest_id = await _waiting_without_a_worker(world)
    emulator.faults.clear()
    world.worker(owner="after the restart", **_HOUR, probe_seconds=0.05)
    assert (await world.done(ingest_id)).state is IngestState.READY


async def test_so_is_one_that_this_process_never_had_an_attempt_on(
    world: World, emulator: OllamaEmulator
) -> None:
    emulator.faults.add(Fault("reset", call="version", times=None))
    ingest_id = await _waiting_without_a_worker(world)
    world.worker(owner="after the restart", **_HOUR, probe_seconds=0.05)
    await until(lambda: len(emulator.calls.named("version")) >= 4)
    emulator.faults.clear()
    assert (await world.done(ingest_id)).state is IngestState.READY


async def test_one_that_answers_and_fails_at_something_else_is_left_to_its_backoff(
    world: World, emulator: OllamaEmulator
) -> None:
    emulator.faults.add(Fault("respond", call="blob_post", times=None, status=500))
    ingest_id = await _waiting_without_a_worker(world)
    probes = Probes(
        world.database,
        {one.name: one for one in world.targets},
        {one.name: Breaker() for one in world.targets},
    )
    # Woken once by a process that begins, and not by one that was there.
    assert await probes.round(()) == [world.targets[0].name]
    deployment = await world.deployment(ingest_id)
    assert deployment.next_attempt_at is None
    await _waiting_without_a_worker(world)
    assert await probes.round(()) == []


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
