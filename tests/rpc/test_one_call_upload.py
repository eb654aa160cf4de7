"""An Upload whose `start` holds the whole CreateIngestRequest: the way of grpcurl."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import (
    CreateIngestRequest,
    FileSpec,
    GetCapabilitiesRequest,
    UploadRequest,
    UploadStart,
    WatchIngestRequest,
)

from ingest_service.ingests.requests import NewIngest
from ingest_service.vocabulary.records import Ingest
from tests.rpc.refusals import refused
from tests.rpc.scenes import Scene
from tests.rpc.uploading import Answer, chunk, finish, upload, upload_call
from tests.support.files import MEBIBYTE, create_request, digest, gguf, push, upload_messages
from tests.support.stubs import ingest_stub

DATA = gguf(3 * MEBIBYTE)
OTHER = digest(b"other")


def creating(request: CreateIngestRequest) -> UploadRequest:
    """First message of an upload that creates its ingest."""
    return UploadRequest(start=UploadStart(create=request))


async def name_in_metadata(call: Any) -> str:
    """The new ingest's name, as soon as the service tells it."""
    metadata = await asyncio.wait_for(call.initial_metadata(), 30)
    return str(dict(metadata)["model-ingest-name"])


async def test_the_name_goes_out_before_the_first_chunk_comes_in(scene: Scene) -> None:
    async with scene.running.channel() as channel:
        call = upload_call(channel)
        answer = Answer(call)
        await call.write(creating(create_request(DATA, "m")))
        name = await name_in_metadata(call)
        assert (await scene.get(name)).state == resources_pb2.Ingest.STATE_UPLOADING
        for message in upload_messages("", DATA)[1:]:
            await call.write(message)
        await call.done_writing()
        file = await answer.get()
    assert file.name == f"{name}/files/model.gguf"
    assert (file.state, file.sha256) == (resources_pb2.File.STATE_STORED, digest(DATA))
    async for _ in scene.running.ingests.WatchIngest(WatchIngestRequest(name=name), timeout=30):
        pass
    assert (await scene.get(name)).state == resources_pb2.Ingest.STATE_READY


async def test_an_upload_of_a_known_ingest_sends_no_name(scene: Scene) -> None:
    file = await scene.new_file(DATA)
    async with scene.running.channel() as channel:
        call = upload_call(channel)
        for message in upload_messages(file, DATA):
            await call.write(message)
        await call
        assert "model-ingest-name" not in dict(await call.initial_metadata())


@pytest.mark.extended
async def test_a_stored_file_takes_the_rest_of_the_stream_and_says_so(scene: Scene) -> None:
    await push(scene.running.ingests, DATA, "first")
    request = create_request(DATA, "second", sha256=digest(DATA))
    file = await upload(scene.running, upload_messages(request, DATA))
    assert file.deduplicated
    assert file.state == resources_pb2.File.STATE_STORED
    assert scene.blobs() == [digest(DATA).replace(":", "-")]
    assert scene.partials() == []
    assert (await scene.ended(file.name)).state == resources_pb2.Ingest.STATE_READY
    assert scene.emulator.calls.body_bytes("blob_post") == len(DATA)


async def test_a_stored_file_is_answered_even_without_finish(scene: Scene) -> None:
    """Its bytes are all here; nothing that this stream could still say changes that."""
    await push(scene.running.ingests, DATA, "first")
    request = create_request(DATA, "second", sha256=digest(DATA))
    file = await upload(scene.running, [creating(request), chunk(0, DATA[:MEBIBYTE])])
    assert (file.state, file.deduplicated) == (resources_pb2.File.STATE_STORED, True)


@pytest.mark.extended_unless("2")
@pytest.mark.parametrize("count", [0, 2])
async def test_exactly_one_file(scene: Scene, count: int) -> None:
    files = [FileSpec(file_name=f"{number}.gguf", size_bytes=1) for number in range(count)]
    request = CreateIngestRequest(model="m", files=files)
    await refused(upload(scene.running, [creating(request)]), "OPTION_UNSUPPORTED", "files")
    assert await scene.all_ingests() == []


async def test_finishing_a_stored_file_again(scene: Scene) -> None:
    """Absent or equal: the file. Another: refused, and the stored file stays what it is."""
    ingest = await push(scene.running.ingests, DATA, "m")
    stored = ingest.files[0]
    again = upload_messages(stored.name, DATA)[:1]
    for sha256 in ("", digest(DATA)):
        assert await upload(scene.running, [*again, finish(sha256)]) == stored
    refusal = await refused(upload(scene.running, [*again, finish(OTHER)]), "DIGEST_MISMATCH")
    assert refusal.metadata == {"expected": digest(DATA), "actual": OTHER}
    await refused(upload(scene.running, [*again, finish("sha256:x")]), "DIGEST_MALFORMED")
    assert await scene.get(stored.name) == ingest
    assert scene.blobs() == [digest(DATA).replace(":", "-")]


async def ends_well(scene: Scene, ingest: resources_pb2.Ingest) -> None:
    """It took no byte and waits for them all; they can still come."""
    (file,) = ingest.files
    assert file.state in {resources_pb2.File.STATE_PENDING, resources_pb2.File.STATE_UPLOADING}
    assert (file.committed_size, ingest.done) == (0, False)
    stored = await upload(scene.running, upload_messages(file.name, DATA))
    assert stored.sha256 == digest(DATA)


async def test_a_client_that_vanishes_while_its_ingest_is_created(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction goes on without it; whoever has the ingest's name can bring its bytes."""
    create = scene.running.service.ingests.create
    committed, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(request: NewIngest) -> Ingest:
        ingest = await create(request)
        committed.set()
        await go_on.wait()
        return ingest

    monkeypatch.setattr(scene.running.service.ingests, "create", slowly)
    async with scene.running.channel() as channel:
        call = upload_call(channel)
        await call.write(creating(create_request(DATA, "cut")))
        await asyncio.wait_for(committed.wait(), 30)
        call.cancel()
        # On the same connection: with this answered, the cancel before it has arrived too.
        await ingest_stub(channel).GetCapabilities(GetCapabilitiesRequest())
    go_on.set()
    await scene.quiet()
    (ingest,) = await scene.all_ingests()
    await ends_well(scene, ingest)


@pytest.mark.extended
async def test_a_client_that_vanishes_right_after_start(scene: Scene) -> None:
    """Wherever in the beginning the cut falls."""
    for waits in (False, True) * 15:
        async with scene.running.channel() as channel:
            call = upload_call(channel)
            await call.write(creating(create_request(DATA, "cut")))
            if waits:
                await name_in_metadata(call)
            call.cancel()
    await scene.quiet()
    for ingest in await scene.all_ingests():
        await ends_well(scene, ingest)
