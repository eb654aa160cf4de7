"""A model that a target's server dies of is not sent to it for an hour."""

from __future__ import annotations

from ingest_service.forwarding.breaker import MAX_CREATES_CUT
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.states import IngestState
from tests.forwarding.world import World
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import gguf


async def test_a_target_that_dies_of_each_create_is_left_alone(
    world: World, emulator: OllamaEmulator
) -> None:
    emulator.faults.add(Fault("reset", "create", times=100))
    ingest_id = await world.stored(gguf())
    world.worker()
    ingest = await world.done(ingest_id)
    assert ingest.state is IngestState.FAILED
    assert ingest.failure is not None
    assert ingest.failure.reason is Reason.TARGET_REFUSED
    assert "broke off 3 times while it created this model" in ingest.failure.message
    assert len(emulator.calls.named("create")) == MAX_CREATES_CUT
    # Whoever has looked into it may try again, and is given as many tries.
    await world.ingests.retry(ingest_id)
    assert (await world.done(ingest_id)).state is IngestState.FAILED
    assert len(emulator.calls.named("create")) == 2 * MAX_CREATES_CUT


async def test_one_that_breaks_off_now_and_then_gets_its_model(
    world: World, emulator: OllamaEmulator
) -> None:
    emulator.faults.add(Fault("reset", "create", times=MAX_CREATES_CUT - 1))
    ingest_id = await world.stored(gguf())
    world.worker()
    assert (await world.done(ingest_id)).state is IngestState.READY
