"""Bytes that were found to be rotten (CORRUPT) are not forwarded: no request, no file, by any way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.states import BlobState, IngestState
from tests.forwarding.world import World, calls
from tests.ollama_emulator import OllamaEmulator
from tests.support.files import digest, gguf

pytestmark = pytest.mark.extended_when("postgresql")

DATA = gguf(5000)


async def rotten(world: World) -> str:
    """A stored ingest whose blob was found out; its file is whole, so that nothing else can stop it."""
    ingest_id = await world.stored(DATA)
    seen = (await world.database.read(lambda tx: tx.blobs.some([digest(DATA)])))[digest(DATA)]
    assert await world.database.transact(lambda tx: tx.blobs.mark_rotten(seen))
    return ingest_id


@pytest.mark.extended_unless("True")
@pytest.mark.parametrize("shares_directory", [False, True])
async def test_it_is_neither_sent_nor_adopted(
    both_worlds: World, emulator: OllamaEmulator, tmp_path: Path, *, shares_directory: bool
) -> None:
    world = both_worlds
    if shares_directory:
        world.targets[0] = replace(world.targets[0], models_dir=tmp_path / "a")
    ingest_id = await rotten(world)
    world.worker()
    ingest = await world.done(ingest_id)
    assert ingest.failure is not None
    assert ingest.failure.reason is Reason.BLOB_CORRUPT
    await world.ingests.retry(ingest_id)
    assert (await world.done(ingest_id)).state is IngestState.FAILED
    assert set(calls(emulator).split()) == {"version"}
    assert not list((tmp_path / "a" / "blobs").iterdir())


async def test_once_it_is_healed_a_retry_brings_it(both_worlds: World, emulator: OllamaEmulator) -> None:
    ingest_id = await rotten(both_worlds)
    both_worlds.worker()
    assert (await both_worlds.done(ingest_id)).state is IngestState.FAILED
    await both_worlds.stored(DATA, "other", targets=["a"])
    blob = (await both_worlds.database.read(lambda tx: tx.blobs.some([digest(DATA)])))[digest(DATA)]
    assert blob.state is BlobState.LIVE
    await both_worlds.ingests.retry(ingest_id)
    assert (await both_worlds.done(ingest_id)).state is IngestState.READY
    assert emulator.blobs.read(digest(DATA)) == DATA
