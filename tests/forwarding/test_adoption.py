"""Adoption end to end: a target that shares its models directory gets the file without a byte over HTTP."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.states import IngestState
from tests.forwarding.world import World, calls
from tests.ollama_emulator import OllamaEmulator
from tests.support.files import digest, gguf

DATA = gguf(5000)


@pytest.fixture
def shared(world: World, tmp_path: Path) -> World:
    """The target `a`, whose directory the service sees."""
    world.targets[0] = replace(world.targets[0], models_dir=tmp_path / "a")
    return world


async def notices(world: World, ingest_id: str) -> list[str]:
    return [event.body["message"] for event in await world.events(ingest_id) if event.kind == "notice"]


async def test_no_byte_goes_over_http(shared: World, emulator: OllamaEmulator) -> None:
    ingest = await shared.forwarded(DATA)
    assert ingest.state is IngestState.READY
    assert "post" not in calls(emulator).split()
    (said,) = await notices(shared, ingest.id)
    assert "without sending its bytes (" in said
    assert [layer.digest for layer in emulator.models["m"].of_kind("model")] == [digest(DATA)]


async def test_a_rotten_copy_at_the_target_is_replaced_before_it_is_used(
    shared: World, emulator: OllamaEmulator, tmp_path: Path
) -> None:
    there = tmp_path / "a" / "blobs" / digest(DATA).replace(":", "-")
    there.write_bytes(b"x" * len(DATA))
    ingest = await shared.forwarded(DATA)
    assert ingest.state is IngestState.READY
    assert there.read_bytes() == DATA


async def test_a_directory_that_is_another_ollamas_means_http_and_says_so(
    world: World, emulator: OllamaEmulator, tmp_path: Path
) -> None:
    (tmp_path / "other" / "blobs").mkdir(parents=True)
    world.targets[0] = replace(world.targets[0], models_dir=tmp_path / "other")
    ingest = await world.forwarded(DATA)
    assert ingest.state is IngestState.READY
    assert "post" in calls(emulator).split()
    (said,) = await notices(world, ingest.id)
    assert "over HTTP: its models directory is not the one" in said


async def test_a_directory_that_cannot_be_used_means_http_and_says_why(
    world: World, emulator: OllamaEmulator, tmp_path: Path
) -> None:
    world.targets[0] = replace(world.targets[0], models_dir=tmp_path / "nowhere")
    ingest = await world.forwarded(DATA)
    assert ingest.state is IngestState.READY
    assert "post" in calls(emulator).split()
    (said,) = await notices(world, ingest.id)
    assert "over HTTP: blobs/ cannot be looked at there" in said


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_stored_file_that_was_cut_is_not_adopted(
    shared: World, emulator: OllamaEmulator, tmp_path: Path, *, is_there: bool
) -> None:
    ingest_id = await shared.stored(DATA)
    os.truncate(shared.blob_path(DATA), 1000)
    there = tmp_path / "a" / "blobs" / digest(DATA).replace(":", "-")
    if is_there:
        there.write_bytes(DATA)
    shared.worker(retry_seconds=0)
    ingest = await shared.done(ingest_id)
    if is_there:
        assert ingest.state is IngestState.READY
        assert there.read_bytes() == DATA
    else:
        assert ingest.failure is not None
        assert ingest.failure.reason is Reason.BLOB_CORRUPT
        assert not there.exists()


async def test_a_pipe_at_the_target_is_not_waited_for(
    shared: World, emulator: OllamaEmulator, tmp_path: Path
) -> None:
    there = tmp_path / "a" / "blobs" / digest(DATA).replace(":", "-")
    os.mkfifo(there)
    assert (await shared.forwarded(DATA)).state is IngestState.READY
    assert there.read_bytes() == DATA
