"""RetryIngest: what failed on a target begins anew, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest_service.database import Database
from ingest_service.ingests.requests import NewFile, NewIngest
from ingest_service.vocabulary.errors import BytesMissing, IngestNotFound, TargetUnknown
from ingest_service.vocabulary.states import DeploymentState, FileRole, IngestState
from tests.forwarding.world import World, open_world
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import digest, gguf

pytestmark = pytest.mark.extended_when("postgresql")

_D = DeploymentState


async def test_only_what_failed_is_tried_again(database: Database, tmp_path: Path) -> None:
    async with (
        OllamaEmulator(version="0.24.0", data_dir=tmp_path / "a") as good,
        OllamaEmulator(version="0.24.0", data_dir=tmp_path / "b") as bad,
        open_world(database, tmp_path / "data", good, bad) as world,
    ):
        bad.faults.add(Fault("error_line", "create", after_line=1, body="no such thing"))
        ingest_id = await world.stored(gguf())
        world.worker()
        failed = await world.done(ingest_id)
        assert failed.state is IngestState.FAILED
        assert [d.state for d in failed.deployments] == [_D.READY, _D.FAILED]
        # What is READY stays, and is not even asked for.
        again = await world.ingests.retry(ingest_id)
        assert (again.state, again.done, again.failure) == (IngestState.FORWARDING, False, None)
        assert [d.state for d in again.deployments] == [_D.READY, _D.PENDING]
        assert again.deployments[1].failure is None
        ended = await world.done(ingest_id)
        assert ended.state is IngestState.READY
        assert len(good.calls.named("create")) == 1
        assert len(bad.calls.named("create")) == 2
        # STORED is told once in a history, however often it is retried.
        states = [e.body["state"] for e in await world.events(ingest_id) if e.kind == "ingest_state"]
        assert states == ["UPLOADING", "STORED", "FORWARDING", "FAILED", "FORWARDING", "READY"]
        # Idempotent: nothing failed any more.
        assert await world.ingests.retry(ingest_id) == ended


async def test_only_the_named_targets(database: Database, tmp_path: Path) -> None:
    async with (
        OllamaEmulator(version="0.24.0", data_dir=tmp_path / "a") as one,
        OllamaEmulator(version="0.24.0", data_dir=tmp_path / "b") as two,
        open_world(database, tmp_path / "data", one, two) as world,
    ):
        for emulator in (one, two):
            emulator.faults.add(Fault("error_line", "create", after_line=1, body="no"))
        ingest_id = await world.stored(gguf())
        world.worker()
        await world.done(ingest_id)
        with pytest.raises(TargetUnknown):
            await world.ingests.retry(ingest_id, ["a", "zz"])
        await world.ingests.retry(ingest_id, ["b"])
        ended = await world.done(ingest_id)
        assert [d.state for d in ended.deployments] == [_D.FAILED, _D.READY]
        assert ended.state is IngestState.FAILED
        assert ended.failure is not None


async def test_what_cannot_be_retried(world: World) -> None:
    with pytest.raises(IngestNotFound):
        await world.ingests.retry("0" * 24)
    waiting = await world.ingests.create(NewIngest("m", [NewFile("m.gguf", FileRole.MODEL, 1000)]))
    with pytest.raises(BytesMissing):
        await world.ingests.retry(waiting.id)
    stored = await world.stored(gguf())
    running = await world.ingest(stored)
    assert await world.ingests.retry(stored) == running
    cancelled = await world.ingests.cancel(stored)
    assert await world.ingests.retry(stored) == cancelled


async def test_where_a_newer_one_went_the_older_is_superseded_instead(
    world: World, emulator: OllamaEmulator
) -> None:
    emulator.faults.add(Fault("error_line", "create", after_line=1, body="no"))
    older = await world.stored(gguf(2000, seed=1), "same")
    world.worker()
    assert (await world.done(older)).state is IngestState.FAILED
    newer = await world.stored(gguf(2000, seed=2), "same")
    assert (await world.done(newer)).state is IngestState.READY
    again = await world.ingests.retry(older)
    assert again.deployments[0].state is _D.SUPERSEDED
    assert again.done
    assert [layer.digest for layer in emulator.models["same"].of_kind("model")] == [
        digest(gguf(2000, seed=2))
    ]
