"""A target's blobs that vanish are sent once more; those that are rotten there are named, with the remedy."""

from __future__ import annotations

import pytest

from ingest_service.vocabulary.reasons import Reason
from tests.forwarding.world import World, calls
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import digest, gguf

DATA = gguf(100_000)
TO_CREATE = "version head post show create"


@pytest.mark.extended_unless("0.24.0")
@pytest.mark.parametrize("version", ["0.24.0", "0.33.0", "0.34.1"])
async def test_a_blob_missing_at_create_is_sent_once_more(
    world: World, emulator: OllamaEmulator, version: str
) -> None:
    emulator.version = version
    emulator.faults.add(Fault("vanish_blob", "create"))
    ingest = await world.forwarded(DATA)
    assert ingest.deployments[0].failure is None
    assert calls(emulator) == f"{TO_CREATE} head post show create show tags"
    # While bytes are sent it says so, and a cancel would be heeded.
    assert await world.states(ingest.id) == "PUSHING CREATING PUSHING CREATING READY"
    assert any(event.kind == "notice" for event in await world.events(ingest.id))


@pytest.mark.extended_unless("0.24.0")
@pytest.mark.parametrize("version", ["0.24.0", "0.34.1"])
async def test_a_blob_missing_twice_is_final(world: World, emulator: OllamaEmulator, version: str) -> None:
    emulator.version = version
    emulator.faults.add(Fault("vanish_blob", "create", times=2))
    ingest = await world.forwarded(DATA)
    assert ingest.failure is not None
    assert ingest.failure.reason is Reason.TARGET_REFUSED
    assert calls(emulator) == f"{TO_CREATE} head post show create"


async def test_a_blob_that_vanishes_right_after_head_is_sent(world: World, emulator: OllamaEmulator) -> None:
    await world.forwarded(DATA, "first")
    emulator.calls.clear()
    emulator.faults.add(Fault("vanish_blob", "blob_head"))
    second = await world.stored(DATA, "second")
    assert (await world.done(second)).deployments[0].failure is None
    assert calls(emulator) == "version head show create head post show create show tags"


async def test_a_truncated_blob_that_was_there_before_is_named_with_its_remedy(
    world: World, emulator: OllamaEmulator
) -> None:
    await world.forwarded(DATA, "first")
    emulator.blobs.truncate(digest(DATA), 100)
    emulator.calls.clear()
    second = await world.stored(DATA, "second")
    failure = (await world.done(second)).failure
    assert failure is not None
    assert failure.reason is Reason.TARGET_BLOB_CORRUPT
    assert "Remove that blob from the target's models directory, then retry." in failure.message
    assert calls(emulator) == "version head show create"


async def test_a_blob_that_was_truncated_under_our_own_push_is_what_ollama_says(
    world: World, emulator: OllamaEmulator
) -> None:
    emulator.faults.add(Fault("truncate_blob", "blob_post", size=100))
    ingest = await world.forwarded(DATA)
    assert ingest.failure is not None
    assert ingest.failure.reason is Reason.TARGET_REFUSED
    assert "EOF" in ingest.failure.message
