"""A database that is away for a while during a deployment costs time, not the deployment nor the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ingest_service.database import Database
from ingest_service.database.migrate import migrate
from ingest_service.vocabulary.errors import BackendDown
from ingest_service.vocabulary.states import DeploymentState
from tests.forwarding.world import World, open_world
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import gguf
from tests.support.postgres import PostgresCluster

PLACES = [("blob_post", None), ("create", "parsing"), ("create", "success")]


@pytest.mark.extended_unless("create-success")
@pytest.mark.parametrize(("call", "line"), PLACES, ids=str)
async def test_a_real_postgresql_restarts_while_a_target_works(
    postgres: PostgresCluster, tmp_path: Any, emulator: OllamaEmulator, call: str, line: str | None
) -> None:
    name = f"away_{call}_{line}"
    database = Database(postgres.create_database(name))
    await migrate(database)
    try:
        async with open_world(database, tmp_path / "data", emulator) as world:
            stall = emulator.faults.add(Fault("stall", call, after_line=line))
            ingest_id = await world.stored(gguf())
            world.worker(lease_seconds=1)
            await stall.wait_stalled()
            await asyncio.to_thread(postgres.stop, "immediate")
            stall.release()
            await asyncio.sleep(0.3)  # the target has answered, and there is no database to write it to
            await asyncio.to_thread(postgres.start)
            ingest = await world.done(ingest_id)
            assert ingest.deployments[0].state is DeploymentState.READY
            assert (await world.states(ingest_id)).split().count("READY") == 1
            assert len(emulator.calls.named("create")) == 1
            # The worker is alive: it takes the next one.
            other = await world.stored(gguf(), "other")
            assert (await world.done(other)).deployments[0].state is DeploymentState.READY
    finally:
        await database.close()
        postgres.drop_database(name)


def _away(world: World, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """While the list's one value is True, this world's worker has no database."""
    away = [False]
    for name in ("transact", "read"):
        real: Callable[[Any], Awaitable[Any]] = getattr(world.database, name)

        async def call(work: Any, real: Callable[[Any], Awaitable[Any]] = real) -> Any:
            if away[0]:
                raise BackendDown
            return await real(work)

        monkeypatch.setattr(world.database, name, call)
    return away


async def test_words_said_while_the_database_is_away_are_written_when_it_is_back(
    world: World, emulator: OllamaEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest_service.forwarding.statuses._AGAIN_SECONDS", 0.01)
    away = _away(world, monkeypatch)
    first = emulator.faults.add(Fault("stall", "create", after_line="parsing"))
    second = emulator.faults.add(Fault("stall", "create", after_line="writing manifest"))
    ingest_id = await world.stored(gguf())
    world.worker()
    await first.wait_stalled()
    away[0] = True
    first.release()
    await second.wait_stalled()
    away[0] = False
    second.release()
    await world.done(ingest_id)
    statuses = await world.statuses(ingest_id)
    assert statuses[0] == "parsing GGUF"
    assert statuses[-2:] == ["writing manifest", "success"]
    assert await world.states(ingest_id) == "PUSHING CREATING READY"


async def test_a_cancel_seen_while_the_database_is_away_does_not_tear_off_a_create(
    world: World, emulator: OllamaEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stall = emulator.faults.add(Fault("stall", "create", after_line="parsing"))
    ingest_id = await world.stored(gguf())
    world.worker(lease_seconds=0.3)
    await stall.wait_stalled()
    await world.ingests.cancel(ingest_id)
    # Renewals still get through and see the cancel; the look at the state that follows does not.
    real = world.database.read
    refused = [0]

    async def read(work: Any) -> Any:
        refused[0] += 1
        raise BackendDown

    monkeypatch.setattr(world.database, "read", read)
    async with asyncio.timeout(10):
        while refused[0] < 3:
            await asyncio.sleep(0.02)
    monkeypatch.setattr(world.database, "read", real)
    assert emulator.calls.named("create")[0].outcome == "open"
    stall.release()
    await world.done(ingest_id)
    assert await world.states(ingest_id) == "PUSHING CREATING READY"
