"""A cancel stops what can be stopped; a running create is left to answer, and what it made is reported."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ingest_service.forwarding.moves import CancelDue
from ingest_service.vocabulary.states import DeploymentState, IngestState
from tests.forwarding.world import World, calls
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import MEBIBYTE, gguf

pytestmark = pytest.mark.extended_when("postgresql")


async def test_a_deployment_that_waits_for_its_turn_is_cancelled_at_once(
    world: World, emulator: OllamaEmulator
) -> None:
    ingest_id = await world.stored(gguf())
    ingest = await world.ingests.cancel(ingest_id)
    assert ingest.state is IngestState.CANCELLED
    world.worker()
    other = await world.stored(gguf(), "other")
    await world.done(other)
    assert await world.states(ingest_id) == "CANCELLED"
    assert {call.json["model"] for call in emulator.calls.named("create")} == {"other:latest"}


async def test_a_deployment_that_waits_for_a_retry_is_cancelled_at_once(
    world: World, emulator: OllamaEmulator
) -> None:
    await emulator.stop_listening()
    ingest_id = await world.stored(gguf())
    world.worker(first_backoff_seconds=60, max_backoff_seconds=60)
    await world.until(ingest_id, lambda ingest: ingest.deployments[0].next_attempt_at is not None)
    ingest = await world.ingests.cancel(ingest_id)
    assert ingest.state is IngestState.CANCELLED
    assert ingest.deployments[0].next_attempt_at is None
    assert await world.states(ingest_id) == "PENDING CANCELLED"


async def test_an_attempt_that_has_only_begun_is_cancelled(
    both_worlds: World, emulator: OllamaEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    world = both_worlds
    stall = emulator.faults.add(Fault("stall", "version"))
    ingest_id = await world.stored(gguf())
    worker = world.worker(lease_seconds=600)
    await stall.wait_stalled()
    await world.ingests.cancel(ingest_id)
    stall.release()
    async with asyncio.timeout(20):
        while worker._running:
            await asyncio.sleep(0.01)
    assert await world.states(ingest_id) == "CANCELLED"
    assert calls(emulator) == "version"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_push_is_torn_off(both_worlds: World, emulator: OllamaEmulator) -> None:
    world = both_worlds
    stall = emulator.faults.add(Fault("stall", "blob_post", at_bytes=MEBIBYTE))
    ingest_id = await world.stored(gguf(8 * MEBIBYTE))
    world.worker(lease_seconds=0.6)
    await stall.wait_stalled()
    assert (await world.ingests.cancel(ingest_id)).state is IngestState.CANCELLING
    # The stall is never released: the push ends because it is torn off.
    ingest = await world.done(ingest_id)
    assert ingest.state is IngestState.CANCELLED
    assert ingest.deployments[0].state is DeploymentState.CANCELLED
    assert await world.states(ingest_id) == "PUSHING CANCELLED"
    assert calls(emulator) == "version head post"


@pytest.mark.extended_unless("unknown")
@pytest.mark.parametrize("ends", ["well", "badly", "unknown"])
async def test_a_running_create_is_left_to_answer(world: World, emulator: OllamaEmulator, ends: str) -> None:
    stall = emulator.faults.add(Fault("stall", "create", after_line="parsing"))
    if ends == "badly":
        emulator.faults.add(Fault("error_line", "create", after_line="parsing", body="boom"))
    elif ends == "unknown":
        emulator.faults.add(Fault("cut", "create", after_line="parsing"))
    ingest_id = await world.stored(gguf())
    world.worker(lease_seconds=0.6)
    await stall.wait_stalled()
    assert (await world.ingests.cancel(ingest_id)).state is IngestState.CANCELLING
    await asyncio.sleep(0.7)  # several renewals see the cancel
    ingest = await world.ingest(ingest_id)
    assert ingest.state is IngestState.CANCELLING
    assert ingest.deployments[0].state is DeploymentState.CREATING
    stall.release()
    ingest = await world.done(ingest_id)
    assert ingest.state is IngestState.CANCELLED
    assert not emulator.wedged
    if ends == "well":
        assert await world.states(ingest_id) == "PUSHING CREATING READY"
        assert list(emulator.models) == ["m:latest"]
    else:
        assert await world.states(ingest_id) == "PUSHING CREATING CANCELLED"
        assert not list(emulator.models)
        assert len(emulator.calls.named("create")) == 1


async def test_after_a_cancel_no_create_begins(both_worlds: World) -> None:
    """However the worker's look at the row and the cancel interleave: it is judged under the lock."""
    world = both_worlds
    ingest_id = await world.stored(gguf())
    lease = await world.claim("worker")
    assert lease is not None
    moves = world.moves(lease)
    await moves.move(DeploymentState.PUSHING)
    await world.ingests.cancel(ingest_id)
    for state in (DeploymentState.PUSHING, DeploymentState.CREATING, DeploymentState.PENDING):
        with pytest.raises(CancelDue):
            await moves.move(state)
    await moves.move(DeploymentState.CANCELLED)
    assert await world.states(ingest_id) == "PUSHING CANCELLED"


async def test_a_push_that_fails_under_a_cancel_is_not_tried_again(
    world: World, emulator: OllamaEmulator
) -> None:
    stall = emulator.faults.add(Fault("stall", "blob_post", at_bytes=10))
    ingest_id = await world.stored(gguf())
    # So long a lease that the renewal does not see the cancel before the push has failed.
    world.worker(lease_seconds=600)
    await stall.wait_stalled()
    await world.ingests.cancel(ingest_id)
    await emulator.stop_listening()
    ingest = await world.done(ingest_id)
    assert ingest.state is IngestState.CANCELLED
    assert await world.states(ingest_id) == "PUSHING CANCELLED"


async def test_the_other_target_keeps_what_it_has(world: World, emulator: OllamaEmulator) -> None:
    async with OllamaEmulator(version="0.34.1") as other:
        from ingest_service.forwarding import Target

        world.add_target(Target("b", other.url))
        stall = emulator.faults.add(Fault("stall", "blob_post", at_bytes=10))
        ingest_id = await world.stored(gguf())
        world.worker(targets=world.targets, lease_seconds=0.6)
        await stall.wait_stalled()
        await world.until(ingest_id, lambda ingest: ingest.deployments[1].state is DeploymentState.READY)
        await world.ingests.cancel(ingest_id)
        ingest = await world.done(ingest_id)
        assert ingest.state is IngestState.CANCELLED
        assert [d.state for d in ingest.deployments] == [DeploymentState.CANCELLED, DeploymentState.READY]
        await world.close()


@pytest.mark.extended_unless("True")
@pytest.mark.parametrize("talks", [False, True])
async def test_a_create_that_does_not_end_is_let_go(
    both_worlds: World, emulator: OllamaEmulator, talks: bool
) -> None:
    """Breaks when: a cancel has no effect for as long as a create may take."""
    world = both_worlds
    stall = emulator.faults.add(Fault("stall", "create", after_line="parsing"))
    ingest_id = await world.stored(gguf())
    bounds: dict[str, Any] = {
        "cancel_silence_seconds": 600.0 if talks else 0.3,
        "cancel_total_seconds": 0.3 if talks else 600.0,
    }
    world.worker(lease_seconds=0.6, **bounds)
    await stall.wait_stalled()
    assert (await world.ingests.cancel(ingest_id)).state is IngestState.CANCELLING
    ingest = await world.done(ingest_id)
    assert ingest.state is IngestState.CANCELLED
    (deployment,) = ingest.deployments
    assert deployment.state is DeploymentState.CANCELLED
    assert deployment.failure is not None
    assert "may still finish it" in deployment.failure.message
    assert len(emulator.calls.named("create")) == 1
