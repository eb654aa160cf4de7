"""What looks odd in an upload and is right all the same: repeats, empty chunks, no checksums, odd sizes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.catalog_service_pb2 import ListModelsRequest
from model_ingest.v1.ingest_service_pb2 import UploadRequest

from tests.conftest import StartService
from tests.rpc.scenes import Scene
from tests.rpc.uploading import chunk, finish, start, upload
from tests.support.files import MEBIBYTE, create_request, digest, gguf, push, upload_messages
from tests.support.service import RunningService

DATA = gguf(3 * MEBIBYTE + 17)


@pytest.fixture
async def storing(start_service: StartService) -> RunningService:
    """A service without a target."""
    running: RunningService = await start_service()
    return running


async def assert_stored(running: RunningService, chunks: Iterable[UploadRequest]) -> None:
    """These chunks make up DATA."""
    ingest = await running.ingests.CreateIngest(create_request(DATA))
    messages = [start(ingest.files[0].name), *chunks, finish(digest(DATA))]
    file = await upload(running, messages)
    assert file.state == resources_pb2.File.STATE_STORED
    assert file.sha256 == digest(DATA)
    assert file.committed_size == len(DATA)
    blob = running.settings.data_dir / "blobs" / digest(DATA).replace(":", "-")
    assert blob.read_bytes() == DATA


async def test_a_part_that_was_sent_before_is_skipped(storing: RunningService) -> None:
    overlapping = [
        chunk(0, DATA[:MEBIBYTE]),
        chunk(0, DATA[:MEBIBYTE]),
        chunk(10, DATA[10:20]),
        chunk(MEBIBYTE - 100, DATA[MEBIBYTE - 100 : 2 * MEBIBYTE]),
        # Skipped, whatever it says: those bytes are known.
        chunk(MEBIBYTE, b"\x00" * MEBIBYTE),
        chunk(0, DATA[: 2 * MEBIBYTE]),
        chunk(2 * MEBIBYTE, DATA[2 * MEBIBYTE :]),
        chunk(len(DATA), b""),
    ]
    await assert_stored(storing, overlapping)


async def test_chunks_of_the_largest_size_and_of_one_byte(storing: RunningService) -> None:
    head = [chunk(offset, DATA[offset : offset + 1]) for offset in range(300)]
    large = chunk(300, DATA[300 : 300 + 2 * MEBIBYTE])
    rest = chunk(300 + 2 * MEBIBYTE, DATA[300 + 2 * MEBIBYTE :])
    await assert_stored(storing, [*head, large, rest])


async def test_empty_chunks_are_a_sign_of_life(storing: RunningService) -> None:
    parts = [chunk(offset, DATA[offset : offset + MEBIBYTE]) for offset in range(0, len(DATA), MEBIBYTE)]
    await assert_stored(storing, [item for part in parts for item in (chunk(0, b""), part)])


@pytest.mark.extended
async def test_names_that_differ_only_in_case_are_one_model(scene: Scene) -> None:
    """Neither the catalog nor the target has two."""
    await push(scene.running.ingests, gguf(1000, seed=1), "NS/Foo:V1")
    ingest = await push(scene.running.ingests, gguf(1000, seed=2), "ns/fOO:v1")
    assert ingest.state == resources_pb2.Ingest.STATE_READY
    models = (await scene.running.catalog.ListModels(ListModelsRequest())).models
    assert [model.name for model in models] == ["models/ns/foo:v1"]
    assert len(scene.emulator.models) == 1


async def test_a_finish_that_is_not_followed_by_a_half_close_is_enough(storing: RunningService) -> None:
    ingest = await storing.ingests.CreateIngest(create_request(DATA))
    messages = upload_messages(ingest.files[0].name, DATA)
    file = await upload(storing, messages, half_close=False)
    assert file.state == resources_pb2.File.STATE_STORED
