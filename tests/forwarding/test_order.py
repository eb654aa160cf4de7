"""Two ingests of one name: the newer wins for good, whatever becomes of the older one's attempts.

Breaks when: a stored ingest leaves older deployments alone, an older one that is stored late goes on, or the
re-check before create is left out.
"""

from __future__ import annotations

import pytest

from ingest_service.vocabulary.states import DeploymentState, FileRole, IngestState
from tests.forwarding.world import World, calls
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import digest, gguf

pytestmark = pytest.mark.extended_when("postgresql")

_OLD, _NEW = gguf(3000, seed=1), gguf(3000, seed=2)


async def test_a_newer_one_that_is_stored_ends_the_older_one_that_waits(
    both_worlds: World, emulator: OllamaEmulator
) -> None:
    world = both_worlds
    older = await world.stored(_OLD, "same")
    newer = await world.stored(_NEW, "SAME:latest")
    ingest = await world.ingest(older)
    assert ingest.deployments[0].state is DeploymentState.SUPERSEDED
    # All its bytes are there, and nothing is left to do.
    assert (ingest.state, ingest.done) == (IngestState.STORED, True)
    assert await world.states(older) == "SUPERSEDED"
    world.worker()
    assert (await world.done(newer)).state is IngestState.READY
    assert len(emulator.calls.named("create")) == 1


async def test_other_names_and_other_targets_are_not_touched(both_worlds: World) -> None:
    world = both_worlds
    other = await world.stored(_OLD, "other")
    tagged = await world.stored(_OLD, "same:7b")
    await world.stored(_NEW, "same")
    for ingest_id in (other, tagged):
        assert (await world.deployment(ingest_id)).state is DeploymentState.PENDING


async def test_a_create_that_runs_is_left_to_answer_and_the_newer_one_comes_after_it(
    both_worlds: World, emulator: OllamaEmulator
) -> None:
    world = both_worlds
    stall = emulator.faults.add(Fault("stall", "create", after_line=1))
    older = await world.stored(_OLD, "same")
    world.worker(owner="one")
    await stall.wait_stalled()
    newer = await world.stored(_NEW, "same")
    world.worker(owner="two")
    await world.until(newer, lambda ingest: ingest.deployments[0].state is DeploymentState.PUSHING)
    assert (await world.deployment(older)).state is DeploymentState.CREATING
    stall.release()
    assert (await world.done(older)).state is IngestState.READY
    assert (await world.done(newer)).state is IngestState.READY
    assert [layer.digest for layer in emulator.models["same"].of_kind("model")] == [digest(_NEW)]


async def test_the_older_one_is_not_created_once_its_turn_comes_after_the_newer_ones(
    both_worlds: World, emulator: OllamaEmulator
) -> None:
    world = both_worlds
    older = await world.stored(_OLD, "same")
    lease = await world.claim("slow")
    assert lease is not None
    moves = world.moves(lease)
    # The older one is at its push when the newer one is stored: the row says so at once, and its worker, who
    # may not have looked since, can move it no further.
    await moves.move(DeploymentState.PUSHING)
    newer = await world.stored(_NEW, "same")
    assert (await world.deployment(older)).state is DeploymentState.SUPERSEDED
    world.worker()
    assert (await world.done(newer)).state is IngestState.READY
    assert calls(emulator).count("create") == 1


async def test_an_older_one_that_fails_in_its_create_is_not_tried_again(
    both_worlds: World, emulator: OllamaEmulator
) -> None:
    world = both_worlds
    stall = emulator.faults.add(Fault("stall", "create", after_line=1))
    older = await world.stored(_OLD, "same")
    world.worker(owner="one", lease_seconds=60)
    await stall.wait_stalled()
    newer = await world.stored(_NEW, "same")
    emulator.faults.add(Fault("end_early", "create", after_line="parsing GGUF"))
    stall.release()
    assert (await world.done(newer)).state is IngestState.READY
    ended = await world.done(older)
    assert ended.deployments[0].state in {DeploymentState.SUPERSEDED, DeploymentState.READY}
    assert [layer.digest for layer in emulator.models["same"].of_kind("model")] == [digest(_NEW)]


async def test_the_newer_ones_create_of_the_same_bytes_is_not_taken_for_the_older_ones(
    both_worlds: World, emulator: OllamaEmulator
) -> None:
    world = both_worlds
    files = [("m.gguf", FileRole.MODEL, _OLD)]
    older = await world.stored_set(files, options={"system": "old"})
    lease = await world.claim("killed", lease_seconds=1.5)
    assert lease is not None
    moves = world.moves(lease)
    await moves.move(DeploymentState.PUSHING)
    await moves.move(DeploymentState.CREATING, create_baseline={})
    # Killed before it asked for anything. The newer one is done before its lease runs out.
    newer = await world.stored_set(files, options={"system": "new"})
    world.worker()
    assert (await world.done(newer)).state is IngestState.READY
    assert (await world.done(older)).deployments[0].state is DeploymentState.SUPERSEDED
    assert len(emulator.calls.named("create")) == 1
