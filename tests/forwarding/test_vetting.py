"""What older rules accepted is looked at again before it is used; what is rotten goes nowhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ingest_service.formats import RULES_VERSION
from ingest_service.forwarding import Target
from ingest_service.ingests.requests import NewFile, NewIngest
from ingest_service.vocabulary.errors import FormatInvalid
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.states import FileRole, FileState, IngestState
from tests.forwarding.world import World, now
from tests.ollama_emulator import OllamaEmulator, sample_gguf
from tests.support.files import digest, gguf
from tests.support.formats import ACCEPTED
from tests.support.models import model, shard

pytestmark = pytest.mark.extended_when("postgresql")

OLD = replace(ACCEPTED, rules_version=0)
GOOD, BAD = gguf(5000), sample_gguf()


async def keep_as_of_old(world: World, data: bytes) -> None:
    await world.database.transact(lambda tx: tx.blobs.make_live(digest(data), len(data), OLD, now()))


async def test_an_older_blob_that_is_sound_is_used_and_known_from_then_on(both_worlds: World) -> None:
    world = both_worlds
    ingest_id = await world.stored(GOOD)
    await keep_as_of_old(world, GOOD)
    world.worker()
    assert (await world.done(ingest_id)).state is IngestState.READY
    found = await world.database.read(lambda tx: tx.blobs.some([digest(GOOD)]))
    blob = found[digest(GOOD)]
    assert blob.rules_version == RULES_VERSION
    assert blob.facts is not None
    assert blob.facts["architecture"] == "llama"


async def test_an_older_blob_that_breaks_a_rule_goes_to_no_target(
    both_worlds: World, emulator: OllamaEmulator
) -> None:
    ingest_id = await both_worlds.stored(BAD)
    await keep_as_of_old(both_worlds, BAD)
    both_worlds.worker()
    ingest = await both_worlds.done(ingest_id)
    assert ingest.state is IngestState.FAILED
    assert ingest.failure is not None
    assert ingest.failure.reason is Reason.FORMAT_INVALID
    assert "(rule M2)" in ingest.failure.message
    assert not emulator.calls.named("blob_head") + emulator.calls.named("blob_post")


async def test_shards_that_older_rules_took_are_compared_before_one_of_them_is_sent(
    world: World, emulator: OllamaEmulator
) -> None:
    """Older rules counted the tensors and did not look at their names."""
    emulator.version = "0.33.0"
    parts = [model(1000, kv=shard(number, 2, 4), tensors=("a", "b"), seed=number) for number in range(2)]
    names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    ingest_id = await world.stored_set(
        [(name, FileRole.SHARD, data) for name, data in zip(names, parts, strict=True)]
    )
    for data in parts:
        await keep_as_of_old(world, data)
    world.worker()
    ingest = await world.done(ingest_id)
    assert ingest.failure is not None
    assert ingest.failure.reason is Reason.FORMAT_INVALID
    assert "(rule X3)" in ingest.failure.message
    assert not emulator.calls.named("blob_head") + emulator.calls.named("blob_post")


@pytest.mark.extended_unless("marked")
@pytest.mark.parametrize("how", ["marked", "cut", "gone"])
async def test_a_rotten_blob_goes_to_no_target(world: World, emulator: OllamaEmulator, how: str) -> None:
    ingest_id = await world.stored(GOOD)
    if how == "marked":
        await world.database.transact(lambda tx: tx.blobs.mark_corrupt(digest(GOOD)))
    elif how == "cut":
        world.blob_path(GOOD).write_bytes(GOOD[:-1])
    else:
        world.blob_path(GOOD).unlink()
    world.worker()
    ingest = await world.done(ingest_id)
    assert ingest.failure is not None
    assert ingest.failure.reason is Reason.BLOB_CORRUPT
    assert not emulator.calls.named("create")
    assert not [call for call in emulator.calls.named("blob_post") if call.status == 201]


async def test_nor_is_it_put_into_a_models_directory(
    world: World, emulator: OllamaEmulator, tmp_path: Path
) -> None:
    ingest_id = await world.stored(GOOD)
    await world.database.transact(lambda tx: tx.blobs.mark_corrupt(digest(GOOD)))
    models = tmp_path / "models"
    (models / "blobs").mkdir(parents=True)
    world.worker(targets=[Target("a", emulator.url, models_dir=models)])
    ingest = await world.done(ingest_id)
    assert ingest.failure is not None
    assert ingest.failure.reason is Reason.BLOB_CORRUPT
    assert not list((models / "blobs").iterdir())


async def test_stored_bytes_that_break_todays_rules_are_not_referred_to(world: World) -> None:
    await world.stored(BAD)
    await keep_as_of_old(world, BAD)
    new = NewIngest("again", [NewFile("m.gguf", FileRole.MODEL, len(BAD), digest(BAD))])
    with pytest.raises(FormatInvalid) as refused:
        await world.ingests.create(new)
    assert refused.value.field == "files[0].sha256"
    assert refused.value.metadata["rule"] == "M2"


async def test_stored_bytes_that_cannot_be_read_are_to_be_sent_again(world: World) -> None:
    await world.stored(GOOD)
    await keep_as_of_old(world, GOOD)
    world.blob_path(GOOD).unlink()
    new = NewIngest("again", [NewFile("m.gguf", FileRole.MODEL, len(GOOD), digest(GOOD))])
    assert (await world.ingests.create(new)).files[0].state is FileState.PENDING
