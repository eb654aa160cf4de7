"""The main job through a real server: a file arrives, is kept, and runs on the target."""

from __future__ import annotations

from model_ingest.v1 import resources_pb2
from model_ingest.v1.catalog_service_pb2 import GetModelRequest, ListModelsRequest
from model_ingest.v1.ingest_service_pb2 import WatchIngestRequest

from tests.ollama_emulator import OllamaEmulator
from tests.support.files import MEBIBYTE, digest, gguf, push
from tests.support.service import RunningService


async def test_a_pushed_file_is_stored_and_ready_on_the_target(
    service: RunningService, emulator: OllamaEmulator
) -> None:
    data = gguf(5 * MEBIBYTE)
    ingest = await push(service.ingests, data, "Foo")
    assert ingest.state == resources_pb2.Ingest.STATE_READY
    assert ingest.done
    assert ingest.files[0].sha256 == digest(data)
    assert ingest.files[0].committed_size == len(data)
    blob = service.settings.data_dir / "blobs" / digest(data).replace(":", "-")
    assert blob.read_bytes() == data
    assert emulator.blobs.read(digest(data)) == data
    assert list(emulator.models) == ["Foo:latest"]
    assert not list((service.settings.data_dir / "uploads").glob("*.part"))


async def test_the_same_file_again_sends_no_bytes(service: RunningService, emulator: OllamaEmulator) -> None:
    data = gguf(MEBIBYTE)
    await push(service.ingests, data, "one")
    again = await push(service.ingests, data, "two", sha256=digest(data))
    assert again.state == resources_pb2.Ingest.STATE_READY
    assert again.files[0].deduplicated
    assert emulator.calls.body_bytes("blob_post") == len(data)


async def test_the_catalog_lists_one_model_for_names_that_differ_in_case(service: RunningService) -> None:
    first, second = gguf(MEBIBYTE, seed=1), gguf(MEBIBYTE, seed=2)
    await push(service.ingests, first, "Foo")
    await push(service.ingests, second, "foo:LATEST")
    models = (await service.catalog.ListModels(ListModelsRequest())).models
    assert [model.name for model in models] == ["models/foo:latest"]
    assert models[0].files[0].sha256 == digest(second)
    assert list(models[0].earlier_digests) == [digest(first)]
    found = await service.catalog.GetModel(GetModelRequest(name="models/library/FOO"))
    # A list leaves out what single files say.
    found.files[0].ClearField("facts")
    assert found == models[0]


async def test_events_are_numbered_from_one_without_gaps(service: RunningService) -> None:
    ingest = await push(service.ingests, gguf(MEBIBYTE))
    answers = [item async for item in service.ingests.WatchIngest(WatchIngestRequest(name=ingest.name))]
    events = [answer.event for answer in answers]
    assert [event.sequence for event in events] == list(range(1, ingest.last_sequence + 1))
    assert [event.ingest_state.done for event in events if event.HasField("ingest_state")][-1]
    later = [
        item.event.sequence
        async for item in service.ingests.WatchIngest(WatchIngestRequest(name=ingest.name, after_sequence=4))
    ]
    assert later == list(range(5, ingest.last_sequence + 1))
