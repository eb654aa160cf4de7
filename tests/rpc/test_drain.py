"""A drain: what is running may finish within the grace, the rest ends with DRAINING, nothing is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest, WatchIngestRequest

from ingest_service.ingests.uploads import Uploads
from ingest_service.vocabulary.errors import Draining
from tests.conftest import StartService
from tests.rpc.refusals import error_of, refused
from tests.rpc.scenes import GIVE_UP_SECONDS, Scene, until
from tests.rpc.uploading import Answer, chunk, finish, start, upload_call
from tests.support.files import MEBIBYTE, create_request, digest, gguf
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

DATA = gguf(2 * MEBIBYTE)


class Running:
    """An upload whose first half has been sent."""

    def __init__(self, channel: grpc.aio.Channel, file: str) -> None:
        self.call = upload_call(channel)
        self.answer = Answer(self.call)
        self.file = file

    async def first_half(self) -> None:
        await self.call.write(start(self.file))
        await self.call.write(chunk(0, DATA[:MEBIBYTE]))

    async def second_half(self) -> resources_pb2.File:
        await self.call.write(chunk(MEBIBYTE, DATA[MEBIBYTE:]))
        await self.call.write(finish(digest(DATA)))
        await self.call.done_writing()
        return await self.answer.get()


async def begun(running: RunningService, channel: grpc.aio.Channel) -> Running:
    """A new ingest whose upload has begun."""
    ingest = await running.ingests.CreateIngest(create_request(DATA))
    upload = Running(channel, ingest.files[0].name)
    await upload.first_half()
    await until(lambda: running.service.uploads.active == 1)
    return upload


async def test_an_upload_that_outlasts_the_grace_ends_with_draining(
    start_service: StartService, database_url: str
) -> None:
    running: RunningService = await start_service(database_url=database_url)
    async with running.channel() as channel:
        upload = await begun(running, channel)
        stopping = asyncio.create_task(running.service.stop(grace_seconds=0.3))
        refusal = await refused(upload.answer.get(), "DRAINING")
        assert refusal.retry_seconds is not None
        await asyncio.wait_for(stopping, GIVE_UP_SECONDS)
    (partial,) = (running.settings.data_dir / "uploads").glob("*.part")
    assert partial.read_bytes() == DATA[:MEBIBYTE]
    # The next start finds it as it was left, and takes the rest.
    again: RunningService = await start_service(database_url=database_url)
    name = upload.file.partition("/files/")[0]
    (file,) = (await again.ingests.GetIngest(GetIngestRequest(name=name))).files
    assert (file.state, file.committed_size) == (resources_pb2.File.STATE_UPLOADING, MEBIBYTE)
    async with again.channel() as channel:
        rest = upload_call(channel)
        await rest.write(start(upload.file))
        await rest.write(chunk(MEBIBYTE, DATA[MEBIBYTE:]))
        await rest.write(finish(digest(DATA)))
        assert (await rest).sha256 == digest(DATA)


async def test_an_upload_that_finishes_within_the_grace_is_stored(
    start_service: StartService, database_url: str
) -> None:
    running: RunningService = await start_service(database_url=database_url)
    async with running.channel() as channel:
        upload = await begun(running, channel)
        stopping = asyncio.create_task(running.service.stop(grace_seconds=600))
        await until(lambda: running.service.uploads._draining)
        file = await upload.second_half()
        assert file.state == resources_pb2.File.STATE_STORED
        await asyncio.wait_for(stopping, GIVE_UP_SECONDS)
    again: RunningService = await start_service(database_url=database_url)
    name = upload.file.partition("/files/")[0]
    ingest = await again.ingests.GetIngest(GetIngestRequest(name=name))
    assert ingest.state == resources_pb2.Ingest.STATE_STORED


async def test_watches_end_with_draining(scene: Scene) -> None:
    ingest = await scene.create(DATA)
    calls = [
        scene.running.ingests.WatchIngest(WatchIngestRequest(name=ingest.name), timeout=GIVE_UP_SECONDS)
        for _ in range(3)
    ]
    for call in calls:
        await call.read()
    stopping = asyncio.create_task(scene.running.service.stop(grace_seconds=600))

    async def to_the_end(call: Any) -> None:
        while await call.read() is not grpc.aio.EOF:
            pass

    for call in calls:
        await refused(to_the_end(call), "DRAINING")
    await asyncio.wait_for(stopping, GIVE_UP_SECONDS)


async def test_no_new_call_is_taken(scene: Scene) -> None:
    """By a server that drains: a new connection is refused, an old one is told to go."""
    ingest = await scene.create(DATA)
    async with scene.running.channel() as channel:
        await begun(scene.running, channel)
        stopping = asyncio.create_task(scene.running.service.stop(grace_seconds=1.0))
        await until(lambda: scene.running.service.uploads._draining)
        error = await error_of(scene.get(ingest.name))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        await asyncio.wait_for(stopping, GIVE_UP_SECONDS)


async def test_an_upload_interrupted_between_its_opening_and_its_first_read_ends_at_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens yet when the drain comes: it is heard all the same, long before the idle time."""
    opened = Uploads._opened

    async def then_drained(self: Uploads, ingest_id: str, file_name: str) -> Any:
        session = await opened(self, ingest_id, file_name)
        session.interrupt(Draining())  # type: ignore[union-attr]
        return session

    monkeypatch.setattr(Uploads, "_opened", then_drained)
    file = await scene.new_file(DATA)
    async with scene.running.channel() as channel:
        call = upload_call(channel)
        await call.write(start(file))
        await asyncio.wait_for(refused(call, "DRAINING"), GIVE_UP_SECONDS)
    await scene.assert_resumable(file, 0)


async def test_a_stop_after_a_stop_changes_nothing(start_service: StartService) -> None:
    running: RunningService = await start_service()
    await running.service.stop(0.0)
    await running.service.stop(0.0)
