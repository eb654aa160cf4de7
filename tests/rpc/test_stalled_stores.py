"""A store that stands still, a slow one, crumbs, clients that stop: nobody else notices, memory is bounded.

Breaks when: another call needs what a stuck disk holds, received bytes pile up beyond the windows, crumbs
cost more than their window allows, or an upload that stands still keeps what others need. The disk is stopped
in its threads, where a real one stops; nothing here is judged by the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.catalog_service_pb2 import ListModelsRequest
from model_ingest.v1.ingest_service_pb2 import GetCapabilitiesRequest, GetIngestRequest, ListIngestsRequest

from ingest_service.ingests.slabs import SMALL_BYTES
from ingest_service.storage.writer import Writer
from tests.conftest import StartService
from tests.rpc.scenes import until
from tests.rpc.uploading import chunk, finish, start, upload, upload_call
from tests.support.files import MEBIBYTE, create_request, digest, gguf, upload_messages
from tests.support.service import RunningService

STORED = resources_pb2.File.STATE_STORED
_GIVE_UP_SECONDS = 60.0


class Disk:
    """Writes to partials go on one by one as `grant` lets them, or all of them after `open`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._turns = threading.Semaphore(0)
        self._opened = threading.Event()
        self.waiting = 0
        real = Writer.write

        def write(writer: Writer, offset: int, buffers: Sequence[Any]) -> None:
            self.waiting += 1
            assert self._opened.is_set() or self._turns.acquire(timeout=_GIVE_UP_SECONDS)
            self.waiting -= 1
            real(writer, offset, buffers)

        monkeypatch.setattr(Writer, "write", write)

    def grant(self) -> None:
        self._turns.release()

    def open(self) -> None:
        self._opened.set()
        # As many as can ever wait, and more.
        self._turns.release(1000)


@pytest.fixture
async def service(start_service: StartService) -> RunningService:
    running: RunningService = await start_service(
        window_bytes=4 * MEBIBYTE, total_window_bytes=8 * MEBIBYTE, readiness_seconds=300, sweep_seconds=3600
    )
    return running


@pytest.fixture
def disk(service: RunningService, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Stands still from here on."""
    stopped = Disk(monkeypatch)
    yield stopped
    stopped.open()


async def new_file(service: RunningService, data: bytes, model: str) -> str:
    return (await service.ingests.CreateIngest(create_request(data, model))).files[0].name


def unwritten_bytes(service: RunningService) -> list[int]:
    """What each open upload holds in memory."""
    pipelines = [session.pipeline for session in service.service.uploads._sessions.values()]
    return [pipeline.received_bytes - pipeline.written_bytes for pipeline in pipelines]


async def others_answer(service: RunningService, file: str) -> resources_pb2.File:
    """Calls that do not write; answers the file as it is."""
    await service.ingests.GetCapabilities(GetCapabilitiesRequest(), timeout=30)
    await service.ingests.ListIngests(ListIngestsRequest(), timeout=30)
    await service.catalog.ListModels(ListModelsRequest(), timeout=30)
    name = file.partition("/files/")[0]
    return (await service.ingests.GetIngest(GetIngestRequest(name=name), timeout=30)).files[0]


@contextlib.asynccontextmanager
async def uploading(
    service: RunningService, files: Sequence[tuple[str, bytes]], **options: Any
) -> AsyncIterator[list[asyncio.Task[resources_pb2.File]]]:
    tasks = [
        asyncio.create_task(upload(service, upload_messages(name, data, **options))) for name, data in files
    ]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_while_the_store_stands_still_others_are_answered_and_memory_stays_within_its_budget(
    service: RunningService, disk: Disk
) -> None:
    """Each could fill a window, all together may not."""
    parts = [gguf(5 * MEBIBYTE, seed) for seed in range(10)]
    files = [(await new_file(service, data, f"m{number}"), data) for number, data in enumerate(parts)]
    async with uploading(service, files) as tasks:
        await until(lambda: disk.waiting > 0 and sum(unwritten_bytes(service)) > 7 * MEBIBYTE)
        for name, _ in files:
            assert (await others_answer(service, name)).committed_size == 0
            held = unwritten_bytes(service)
            assert sum(held) <= 8 * MEBIBYTE
            assert max(held) <= 4 * MEBIBYTE
        assert not any(task.done() for task in tasks)
        disk.open()
        assert [(await task).sha256 for task in tasks] == [digest(data) for data in parts]
    assert service.service.uploads.held_bytes == 0


async def test_new_ingests_are_taken_while_every_thread_for_files_waits_for_the_disk(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service: RunningService = await start_service(file_threads=2, readiness_seconds=300, sweep_seconds=3600)
    known, parts = gguf(100_000, 9), [gguf(2 * MEBIBYTE, seed) for seed in range(4)]
    await upload(service, upload_messages(await new_file(service, known, "known"), known))
    files = [(await new_file(service, data, f"m{number}"), data) for number, data in enumerate(parts)]
    disk = Disk(monkeypatch)
    try:
        async with uploading(service, files) as tasks:
            await until(lambda: disk.waiting == 2)
            # Room is looked up, and whether stored bytes are really there.
            await service.ingests.CreateIngest(create_request(parts[0], "meanwhile"), timeout=30)
            request = create_request(known, "again", sha256=digest(known))
            again = await service.ingests.CreateIngest(request, timeout=30)
            assert again.files[0].state == STORED
            assert disk.waiting == 2
            disk.open()
            assert [(await task).state for task in tasks] == [STORED] * len(parts)
    finally:
        disk.open()


async def test_a_slow_disk_holds_its_client_back_and_nobody_else(service: RunningService, disk: Disk) -> None:
    data = gguf(12 * MEBIBYTE)
    name = await new_file(service, data, "slow")
    async with uploading(service, [(name, data)]) as (task,):
        written = 0
        await until(lambda: disk.waiting == 1)
        # Once `finish` has come it is no longer in the list.
        (session,) = service.service.uploads._sessions.values()
        while not task.done() and written < len(data):
            await until(lambda: disk.waiting == 1)
            assert session.pipeline.received_bytes - session.pipeline.written_bytes <= 4 * MEBIBYTE
            await others_answer(service, name)
            before = session.pipeline.written_bytes
            disk.grant()
            await until(partial(_has_written_beyond, session, before))
            written = session.pipeline.written_bytes
        disk.open()
        assert (await task).sha256 == digest(data)


@pytest.mark.extended
async def test_chunks_of_one_byte_weigh_what_they_hold(
    service: RunningService, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an object of its own each would be a hundred times as large in memory."""
    uploads, window_bytes = service.service.uploads, 2000
    monkeypatch.setattr(uploads, "_limits", replace(uploads._limits, window_bytes=window_bytes))
    data = gguf(4000)
    name = await new_file(service, data, "crumbs")
    async with uploading(service, [(name, data)], chunk_bytes=1) as (task,):
        await until(lambda: disk.waiting == 1)
        (session,) = service.service.uploads._sessions.values()
        await until(lambda: session.pipeline.received_bytes == window_bytes)
        for _ in range(5):
            await others_answer(service, name)
        assert session.pipeline.received_bytes == window_bytes
        (slab,) = session.pipeline._window._slabs
        assert slab.size_bytes == SMALL_BYTES
        lane = session.pipeline._write_lane
        assert len(lane.queue) + len(lane.in_work) <= 3
        assert not task.done()
        disk.open()
        assert (await task).sha256 == digest(data)


@pytest.mark.extended
async def test_of_64_uploads_60_stand_still_and_four_do_not_notice(service: RunningService) -> None:
    """What the 60 have sent is twice the budget of all: it must have been given back."""
    data = gguf(MEBIBYTE)
    half = 256 * 1024
    names = [await new_file(service, data, f"m{number}") for number in range(64)]
    async with service.channel() as channel:
        calls = []
        for name in names[:60]:
            call = upload_call(channel)
            await call.write(start(name))
            await call.write(chunk(0, data[:half]))
            calls.append(call)
        await until(lambda: service.service.uploads.active == 60)
        await until(lambda: all(s.pipeline.written_bytes == half for s in _sessions(service)))
        await until(lambda: service.service.uploads.held_bytes == 0)
        files = await asyncio.gather(*(upload(service, upload_messages(name, data)) for name in names[60:]))
        assert {(file.state, file.sha256) for file in files} == {(STORED, digest(data))}
        assert service.service.uploads.active == 60
        assert await others_answer(service, names[0])
        # And one of those that stood still goes on where it was.
        await calls[0].write(chunk(half, data[half:]))
        await calls[0].write(finish(digest(data)))
        await calls[0].done_writing()
        assert (await calls[0]).state == STORED
        for call in calls[1:]:
            call.cancel()


def _has_written_beyond(session: Any, position: int) -> bool:
    return bool(session.pipeline.written_bytes > position)


def _sessions(service: RunningService) -> list[Any]:
    return list(service.service.uploads._sessions.values())
