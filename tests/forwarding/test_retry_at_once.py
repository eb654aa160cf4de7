"""`retry` is tried at once: also while the target rests, from another process, and after a restart.

Breaks when: who asked for a try has to wait for a backoff, or for a target's rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest_service.database import Database
from ingest_service.database.migrate import migrate
from ingest_service.forwarding.breaker import Breaker
from ingest_service.vocabulary.states import IngestState
from tests.forwarding.world import World, open_world
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import gguf

_HOUR: dict[str, Any] = {
    "first_backoff_seconds": 3600.0,
    "max_backoff_seconds": 3600.0,
    "probe_seconds": 3600.0,
}


async def waiting(world: World, emulator: OllamaEmulator) -> str:
    """An ingest that waits an hour for its next try, on a target that is back."""
    fault = emulator.faults.add(Fault("reset", call="version", times=None))
    ingest_id = await world.stored(gguf())
    world.worker(**_HOUR)
    await world.until(ingest_id, lambda ingest: ingest.deployments[0].next_attempt_at is not None)
    emulator.faults.remove(fault)
    return ingest_id


async def test_what_waits_is_tried_at_once(both_worlds: World, emulator: OllamaEmulator) -> None:
    ingest_id = await waiting(both_worlds, emulator)
    again = await both_worlds.ingests.retry(ingest_id)
    assert (again.deployments[0].next_attempt_at, again.deployments[0].attempts) == (None, 0)
    assert (await both_worlds.done(ingest_id)).state is IngestState.READY


async def test_the_targets_rest_does_not_hold_it_up(
    world: World, emulator: OllamaEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest_id = await waiting(world, emulator)
    monkeypatch.setattr(Breaker, "rests", property(lambda breaker: breaker.is_open))
    # One that was never tried is told why it waits, and opens no connection.
    other = await world.stored(gguf(3000), "other")
    await world.until(other, lambda ingest: ingest.deployments[0].next_attempt_at is not None)
    assert len(emulator.calls.named("version")) == 1
    await world.ingests.retry(ingest_id)
    assert (await world.done(ingest_id)).state is IngestState.READY


async def test_from_another_process(tmp_path: Path, sqlite_url: str, emulator: OllamaEmulator) -> None:
    """The process that is asked has no worker; the one that works hears of it by the database alone."""
    working, asked = Database(sqlite_url), Database(sqlite_url)
    try:
        await migrate(working)
        async with (
            open_world(working, tmp_path / "data", emulator) as world,
            open_world(asked, tmp_path / "data", emulator) as other,
        ):
            ingest_id = await waiting(world, emulator)
            await other.ingests.retry(ingest_id)
            assert (await world.done(ingest_id)).state is IngestState.READY
    finally:
        await working.close()
        await asked.close()


async def test_after_a_restart(world: World, emulator: OllamaEmulator) -> None:
    ingest_id = await waiting(world, emulator)
    await world._workers[0].stop()
    await world.ingests.retry(ingest_id)
    world.worker(owner="after the restart", first_backoff_seconds=3600.0)
    assert (await world.done(ingest_id)).state is IngestState.READY
