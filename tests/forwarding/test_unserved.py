"""A deployment on a target that is in nobody's settings any more ends; one that somebody serves goes on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from ingest_service.database import Transaction
from ingest_service.database.tables import ingests, targets
from ingest_service.forwarding import Target
from ingest_service.forwarding.unserved import serve_targets
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.states import DeploymentState, IngestState
from tests.forwarding.world import World, now
from tests.support.files import gguf

pytestmark = pytest.mark.extended_when("postgresql")


async def age(world: World, seconds: float) -> None:
    """All that is there has been so for that long."""

    async def work(tx: Transaction) -> None:
        run = tx.targets._statements.run
        await run(update(ingests).values(stored_at=now() - timedelta(seconds=seconds)))
        await run(update(targets).values(served_at_us=targets.c.served_at_us - int(seconds * 1e6)))

    await world.database.transact(work)


async def test_it_fails_once_nobody_served_it_for_as_long_as_it_may_be_tried(both_worlds: World) -> None:
    world = both_worlds
    world.add_target(Target("gone", "http://127.0.0.1:9"))
    gone = await world.stored(gguf(2000), "gone", ["gone"])
    mine = await world.stored(gguf(3000), "mine", ["a"])
    await serve_targets(world.database, ["a", "gone"], 600, now)
    await age(world, 500)
    await serve_targets(world.database, ["a"], 600, now)
    assert (await world.deployment(gone)).state is DeploymentState.PENDING
    await age(world, 700)
    await serve_targets(world.database, ["a"], 600, now)
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
    await serve_targets(world.database, ["theirs"], 600, now)
    await serve_targets(world.database, ["a"], 600, now)
    assert (await world.deployment(theirs)).state is DeploymentState.PENDING
    lease = await world.database.transact(lambda tx: tx.deployments.claim("them", ["theirs"], [], 60))
    assert lease is not None
    await age(world, 10_000)
    await serve_targets(world.database, ["a"], 600, now)
    assert (await world.deployment(theirs)).state is DeploymentState.PENDING
