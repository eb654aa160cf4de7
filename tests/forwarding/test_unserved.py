"""A deployment on a target that is in nobody's settings any more ends; one that somebody serves goes on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from ingest_service.database import Transaction
from ingest_service.database.tables import ingests, targets
from ingest_service.forwarding import ForwardingSettings, Target
from ingest_service.forwarding.unserved import ServedTargets, announce, fail_unserved
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.states import DeploymentState, IngestState
from tests.forwarding.world import World, now
from tests.support.files import gguf


async def serve_targets(world: World, names: list[str]) -> None:
    """A round of a process that has been there for long; its patience is 600 s."""
    await announce(world.database, names)
    await fail_unserved(world.database, 600, now)


pytestmark = pytest.mark.extended_when("postgresql")


async def age(world: World, seconds: float) -> None:
    """All that is there has been so for that long."""

    async def work(tx: Transaction) -> None:
        run = tx.targets._statements.run
        await run(update(ingests).values(stored_at=now() - timedelta(seconds=seconds)))
        await run(update(targets).values(served_at_us=targets.c.served_at_us - int(seconds * 1e6)))

    await world.database.transact(work)


async def test_it_fails_once_nobody_has_served_it_for_long(both_worlds: World) -> None:
    world = both_worlds
    world.add_target(Target("gone", "http://127.0.0.1:9"))
    gone = await world.stored(gguf(2000), "gone", ["gone"])
    mine = await world.stored(gguf(3000), "mine", ["a"])
    await serve_targets(world, ["a", "gone"])
    await age(world, 500)
    await serve_targets(world, ["a"])
    assert (await world.deployment(gone)).state is DeploymentState.PENDING
    await age(world, 700)
    await serve_targets(world, ["a"])
    ended = await world.ingest(gone)
    assert ended.state is IngestState.FAILED
    assert ended.failure is not None
    assert ended.failure.reason is Reason.TARGET_UNREACHABLE
    assert "gone" in ended.failure.message
    assert (await world.deployment(mine)).state is DeploymentState.PENDING


async def test_what_another_process_serves_is_left_alone(both_worlds: World) -> None:
    world = both_worlds
    world.add_target(Target("theirs", "http://127.0.0.1:9"))
    theirs = await world.stored(gguf(2000), "theirs", ["theirs"])
    await age(world, 10_000)
    await serve_targets(world, ["theirs"])
    await serve_targets(world, ["a"])
    assert (await world.deployment(theirs)).state is DeploymentState.PENDING
    lease = await world.database.transact(lambda tx: tx.deployments.claim("them", ["theirs"], [], 60))
    assert lease is not None
    await age(world, 10_000)
    await serve_targets(world, ["a"])
    assert (await world.deployment(theirs)).state is DeploymentState.PENDING


async def _deaf(world: World, name: str = "gone") -> str:
    world.add_target(Target(name, "http://127.0.0.1:9"))
    return await world.stored(gguf(2000), name, [name])


async def test_a_process_judges_only_after_it_could_have_heard_of_the_others(both_worlds: World) -> None:
    world = both_worlds
    gone = await _deaf(world)
    # Long gone, and due for long: but whoever serves it may be starting just now, as this process is.
    served = ServedTargets(world.database, ["a"], ForwardingSettings(), now)
    assert served.patience_seconds == 35.0
    for seconds in (10_000, 34, 36):
        await age(world, seconds)
        served._last_us -= int(min(seconds, 30) * 1e6)
        await served.round()
        assert (await world.deployment(gone)).state is DeploymentState.PENDING
    assert served._since_us is not None
    served._since_us -= 35_000_000
    await age(world, 36)
    await served.round()
    assert (await world.deployment(gone)).state is DeploymentState.FAILED


async def test_nor_after_a_time_in_which_nobody_could_say_anything(world: World) -> None:
    gone = await _deaf(world)
    served = ServedTargets(world.database, ["a"], ForwardingSettings(), now)
    await served.round()
    assert served._since_us is not None
    # It has said so all along for an hour, then the database was away, or the machine was suspended.
    served._since_us -= 3_600_000_000
    served._last_us -= 36_000_000
    await age(world, 3600)
    await served.round()
    assert (await world.deployment(gone)).state is DeploymentState.PENDING
    await served.round()
    assert (await world.deployment(gone)).state is DeploymentState.PENDING
