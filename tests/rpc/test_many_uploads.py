"""Many uploads at once, and uploads beside a target that hangs."""

from __future__ import annotations

import asyncio

import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.catalog_service_pb2 import ListModelsRequest

from tests.conftest import StartService
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.rpc.scenes import Scene
from tests.rpc.uploading import upload
from tests.support.files import MEBIBYTE, create_request, digest, gguf, push, stored_blobs, upload_messages
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

COUNT = 20


async def stored(running: RunningService, data: bytes, model: str) -> resources_pb2.File:
    """Creates and uploads on connections of its own."""
    ingest = await running.ingests.CreateIngest(create_request(data, model))
    return await upload(running, upload_messages(ingest.files[0].name, data))


@pytest.mark.extended
async def test_twenty_uploads_of_the_same_bytes_at_once(
    start_service: StartService, database_url: str
) -> None:
    running: RunningService = await start_service(database_url=database_url)
    data = gguf(2 * MEBIBYTE)
    files = await asyncio.gather(*(stored(running, data, f"same{number}") for number in range(COUNT)))
    assert {file.sha256 for file in files} == {digest(data)}
    assert {file.state for file in files} == {resources_pb2.File.STATE_STORED}
    assert len({file.name for file in files}) == COUNT
    (blob,) = stored_blobs(running.settings.data_dir)
    assert blob.name == digest(data).replace(":", "-")
    assert blob.read_bytes() == data
    assert not list((running.settings.data_dir / "uploads").glob("*.part"))
    models = (await running.catalog.ListModels(ListModelsRequest())).models
    assert {model.files[0].sha256 for model in models} == {digest(data)}
    assert len(models) == COUNT


@pytest.mark.extended
async def test_twenty_uploads_of_different_bytes_at_once(
    start_service: StartService, database_url: str
) -> None:
    """With a window for all of them that holds two chunks of each."""
    running: RunningService = await start_service(
        database_url=database_url, window_bytes=4 * MEBIBYTE, total_window_bytes=4 * MEBIBYTE
    )
    parts = [gguf(2 * MEBIBYTE + number, seed=number) for number in range(COUNT)]
    files = await asyncio.gather(
        *(stored(running, data, f"different{number}") for number, data in enumerate(parts))
    )
    assert [file.sha256 for file in files] == [digest(data) for data in parts]
    blobs = running.settings.data_dir / "blobs"
    assert len(stored_blobs(running.settings.data_dir)) == COUNT
    for data in parts:
        assert (blobs / digest(data).replace(":", "-")).read_bytes() == data
    assert running.service.uploads.held_bytes == 0


@pytest.mark.extended
async def test_an_upload_completes_while_another_model_is_being_created_at_a_target_that_hangs(
    scene: Scene, emulator: OllamaEmulator
) -> None:
    hanging = emulator.faults.add(Fault("stall", "create"))
    first, second = gguf(MEBIBYTE, seed=1), gguf(24 * MEBIBYTE, seed=2)
    pushing = asyncio.create_task(push(scene.running.ingests, first, "first"))
    await hanging.wait_stalled(30)
    file = await stored(scene.running, second, "second")
    assert file.state == resources_pb2.File.STATE_STORED
    assert not pushing.done()
    assert len(emulator.calls.named("create")) == 1
    ingests = {ingest.model: ingest for ingest in await scene.all_ingests()}
    assert ingests["first:latest"].deployments[0].state == resources_pb2.Deployment.STATE_CREATING
    assert not ingests["second:latest"].done
    models = (await scene.running.catalog.ListModels(ListModelsRequest())).models
    assert [model.name for model in models] == ["models/first:latest", "models/second:latest"]
    hanging.release()
    assert (await pushing).state == resources_pb2.Ingest.STATE_READY
    assert (await scene.ended(file.name)).state == resources_pb2.Ingest.STATE_READY
