"""One create at a time per target, across processes: two workers with databases of their own stand for two.

Breaks when: the turn is not taken, or not renewed while the create runs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from ingest_service.database.deployment_queries import DeploymentQueries, Lease
from ingest_service.vocabulary.states import DeploymentState, IngestState
from tests.forwarding.world import World
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import gguf

pytestmark = pytest.mark.extended_when("postgresql")


@pytest.mark.extended_when("postgresql")
async def test_two_workers_never_create_on_one_target_at_once(
    both_worlds: World, emulator: OllamaEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, renewed, renew = both_worlds, Counter[str](), DeploymentQueries.renew

    async def counted(self: DeploymentQueries, lease: Lease, *arguments: Any) -> bool | None:
        renewed[lease.ingest_id] += 1
        return await renew(self, lease, *arguments)

    monkeypatch.setattr(DeploymentQueries, "renew", counted)
    stall = emulator.faults.add(Fault("stall", "create", after_line=1))
    first, second = await world.stored(gguf(2000), "one"), await world.stored(gguf(3000), "two")
    # Renewed three times within its length; it would run out while the create stands still.
    world.worker(owner="one", lease_seconds=2)
    world.worker(owner="two", lease_seconds=2)
    await stall.wait_stalled()
    creating = [i for i in (first, second) if (await world.deployment(i)).state is DeploymentState.CREATING]
    (waiting,) = {first, second} - set(creating)
    await world.until(waiting, lambda ingest: ingest.deployments[0].state is DeploymentState.PUSHING)
    before = renewed.copy()
    async with asyncio.timeout(60):
        while min(renewed[one] - before[one] for one in (first, second)) < 5:
            await asyncio.sleep(0.05)
    assert len(emulator.calls.named("create")) == 1
    assert (await world.deployment(waiting)).state is DeploymentState.PUSHING
    stall.release()
    for ingest_id in (first, second):
        ended = await world.done(ingest_id)
        assert ended.state is IngestState.READY
        assert ended.deployments[0].attempts == 1
    assert len(emulator.calls.named("create")) == 2


async def test_one_that_waits_for_its_turn_can_be_cancelled(world: World, emulator: OllamaEmulator) -> None:
    stall = emulator.faults.add(Fault("stall", "create", after_line=1))
    await world.stored(gguf(2000), "one")
    world.worker(owner="one")
    await stall.wait_stalled()
    waiting = await world.stored(gguf(3000), "two")
    world.worker(owner="two")
    await world.until(waiting, lambda ingest: ingest.deployments[0].state is DeploymentState.PUSHING)
    await world.ingests.cancel(waiting)
    assert (await world.done(waiting)).state is IngestState.CANCELLED
    stall.release()


async def test_the_turn_of_one_that_died_runs_out(both_worlds: World) -> None:
    world = both_worlds
    await world.database.transact(lambda tx: tx.targets.serve(["a"]))

    async def takes(owner: str, seconds: float) -> bool:
        return await world.database.transact(lambda tx: tx.targets.take_turn("a", owner, seconds))

    assert await takes("dead", -1)
    assert await takes("next", 60)
    assert not await takes("third", 60)
    assert await takes("next", 60)
    await world.database.transact(lambda tx: tx.targets.end_turn("a", "third"))
    assert not await takes("third", 60)
    await world.database.transact(lambda tx: tx.targets.end_turn("a", "next"))
    assert await takes("third", 60)
