"""What a client hears when there is no room or no slot for its bytes, and when there is some again.

Breaks when: a refusal lacks its reason or tells to wait in vain, an upload that ended keeps its slot, or a
promise of room outlives what it was made for. No test fills a disk: a promise alone takes the room.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from model_ingest.v1 import errors_pb2, resources_pb2
from model_ingest.v1.ingest_service_pb2 import CancelIngestRequest, GetIngestRequest, ListIngestsRequest

from ingest_service.app import now
from tests.conftest import StartService
from tests.rpc.refusals import refused
from tests.rpc.scenes import until
from tests.rpc.uploading import chunk, start, upload, upload_call
from tests.support.files import create_request, digest, gguf, upload_messages
from tests.support.models import beginning
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

DATA = gguf(100_000)
STORED = resources_pb2.File.STATE_STORED


async def new_file(service: RunningService, size: bytes | int = DATA, model: str = "test") -> str:
    return (await service.ingests.CreateIngest(create_request(size, model))).files[0].name


def first_bytes(size_bytes: int) -> bytes:
    """As many as DATA has, of a file that is larger."""
    return beginning(size_bytes, len(DATA))


def ingest_of(file_name: str) -> str:
    return file_name.partition("/files/")[0]


# Slots ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def held_open(service: RunningService, file_name: str) -> AsyncIterator[Any]:
    """An Upload call that has brought half of DATA and goes on."""
    async with service.channel() as channel:
        call = upload_call(channel)
        await call.write(start(file_name))
        await call.write(chunk(0, DATA[:50_000]))
        yield call
        call.cancel()


async def half_closes(service: RunningService, file_name: str, call: Any) -> None:
    await call.done_writing()
    await call


async def vanishes(service: RunningService, file_name: str, call: Any) -> None:
    call.cancel()


async def is_cancelled(service: RunningService, file_name: str, call: Any) -> None:
    await service.ingests.CancelIngest(CancelIngestRequest(name=ingest_of(file_name)))


async def is_refused(service: RunningService, file_name: str, call: Any) -> None:
    await call.write(chunk(70_000, b"a gap"))


async def finishes(service: RunningService, file_name: str, call: Any) -> None:
    await call.write(chunk(50_000, DATA[50_000:]))
    await call.write(upload_messages(file_name, b"", sha256=digest(DATA))[-1])
    await call.done_writing()
    assert (await call).state == STORED


@pytest.mark.extended_unless("finishes", "vanishes")
@pytest.mark.parametrize("ends", [half_closes, vanishes, is_cancelled, is_refused, finishes])
async def test_one_upload_too_many_is_told_to_wait_and_gets_the_slot_of_one_that_ended(
    ends: Callable[[RunningService, str, Any], Awaitable[None]], start_service: StartService
) -> None:
    service: RunningService = await start_service(max_uploads=2)
    names = [await new_file(service, model=f"m{number}") for number in range(3)]
    async with held_open(service, names[0]) as first, held_open(service, names[1]):
        await until(lambda: service.service.uploads.active == 2)
        refusal = await refused(upload(service, upload_messages(names[2], DATA)), "TOO_MANY_UPLOADS")
        assert refusal.metadata == {"limit": "2"}
        assert refusal.retry_seconds is not None
        # It took nothing from the file: the next call finds it as it was.
        ingest = await service.ingests.GetIngest(GetIngestRequest(name=ingest_of(names[2])))
        assert ingest.files[0].state == resources_pb2.File.STATE_PENDING
        await ends(service, names[0], first)
        await until(lambda: service.service.uploads.active == 1)
        assert (await upload(service, upload_messages(names[2], DATA))).state == STORED


async def test_uploads_that_are_being_opened_count(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They all come before the first of them is open."""
    service: RunningService = await start_service(max_uploads=2)
    names = [await new_file(service, model=f"m{number}") for number in range(5)]
    moves, gate = service.service.uploads._moves, asyncio.Event()
    begin, begun = moves.begin, 0

    async def slow(*arguments: Any) -> Any:
        nonlocal begun
        begun += 1
        await gate.wait()
        return await begin(*arguments)

    monkeypatch.setattr(moves, "begin", slow)
    calls = [asyncio.create_task(upload(service, upload_messages(name, DATA))) for name in names]
    try:
        await until(lambda: sum(call.done() for call in calls) == 3)
        too_many = [call for call in calls if call.done()]
        assert begun == 2
    finally:
        gate.set()
    for call in calls:
        if call in too_many:
            await refused(call, "TOO_MANY_UPLOADS")
        else:
            assert (await call).state == STORED


# Room -----------------------------------------------------------------------------------------------------


async def most_of_the_room(service: RunningService) -> int:
    """So many bytes that they fit once and not twice, even if others use the disk meanwhile."""
    return int(await service.service.store.free_bytes() * 0.6)


async def room_is_there(service: RunningService, size_bytes: int) -> None:
    """A promise of that size is given; and taken back, for the next question."""
    name = await new_file(service, size_bytes, "asks")
    await service.ingests.CancelIngest(CancelIngestRequest(name=ingest_of(name)))


async def room_is_taken(service: RunningService, size_bytes: int) -> None:
    call = service.ingests.CreateIngest(create_request(size_bytes, "asks"))
    # Waiting would be in vain: somebody has to make room.
    assert (await refused(call, "STORAGE_FULL")).retry_seconds is None


def minutes_later(service: RunningService, minutes: float) -> None:
    """Room is given, and taken back, by this clock."""
    for admission in (service.service.ingests._admission, service.service.uploads._moves._admission):
        assert admission is not None
        admission._clock = lambda: now() + timedelta(minutes=minutes)


@asynccontextmanager
async def promised(start_service: StartService, database_url: str) -> AsyncIterator[tuple[Any, str, int]]:
    """A service most of whose room is promised to one file; the file, and so many bytes."""
    service = await start_service(database_url=database_url, max_file_bytes=2**60)
    size_bytes = await most_of_the_room(service)
    name = await new_file(service, size_bytes, "promised")
    await room_is_taken(service, size_bytes)
    yield service, name, size_bytes


async def test_who_is_refused_for_want_of_room_leaves_nothing_behind(
    database_url: str, start_service: StartService
) -> None:
    async with promised(start_service, database_url) as (service, name, _):
        ingests = (await service.ingests.ListIngests(ListIngestsRequest())).ingests
        assert [ingest.name for ingest in ingests] == [ingest_of(name)]


async def test_room_comes_back_when_its_ingest_is_cancelled(
    database_url: str, start_service: StartService
) -> None:
    async with promised(start_service, database_url) as (service, name, size_bytes):
        await service.ingests.CancelIngest(CancelIngestRequest(name=ingest_of(name)))
        await room_is_there(service, size_bytes)
        await refused(upload(service, [start(name), chunk(0, first_bytes(size_bytes))]), "UPLOAD_CLOSED")


async def test_room_comes_back_when_its_file_fails(database_url: str, start_service: StartService) -> None:
    async with promised(start_service, database_url) as (service, name, size_bytes):
        await refused(upload(service, [start(name), chunk(0, b"no GGUF" * 100)]), "FORMAT_INVALID")
        await room_is_there(service, size_bytes)


async def test_room_comes_back_when_its_upload_expires_and_the_client_is_told_to_create_again(
    database_url: str, start_service: StartService
) -> None:
    async with promised(start_service, database_url) as (service, name, size_bytes):
        await upload(service, [start(name), chunk(0, first_bytes(size_bytes))])
        sweeper = service.service.sweeper
        sweeper._clock = lambda: now() + timedelta(days=8)
        await room_is_taken(service, size_bytes)
        report = await sweeper.run()
        assert [f"ingests/{ingest}" for ingest in report.expired_ingests] == [ingest_of(name)]
        await room_is_there(service, size_bytes)
        refusal = await refused(
            upload(service, [start(name), chunk(0, first_bytes(size_bytes))]), "UPLOAD_EXPIRED"
        )
        assert refusal.retry_seconds is None
        ingest = await service.ingests.GetIngest(GetIngestRequest(name=ingest_of(name)))
        assert (ingest.state, ingest.done) == (resources_pb2.Ingest.STATE_EXPIRED, True)
        assert ingest.failure.reason == errors_pb2.UPLOAD_EXPIRED


async def test_room_lapses_when_no_byte_comes_and_the_late_byte_asks_for_it_anew(
    database_url: str, start_service: StartService
) -> None:
    async with promised(start_service, database_url) as (service, name, size_bytes):
        minutes_later(service, 9)
        await room_is_taken(service, size_bytes)
        minutes_later(service, 11)
        await room_is_there(service, size_bytes)
        # Nobody else has taken it: the late byte is welcome, and the room is its own again.
        assert (
            await upload(service, [start(name), chunk(0, first_bytes(size_bytes))])
        ).committed_size == len(DATA)
        await room_is_taken(service, size_bytes)


async def test_room_that_lapsed_and_went_to_another_is_not_given_twice(
    database_url: str, start_service: StartService
) -> None:
    async with promised(start_service, database_url) as (service, name, size_bytes):
        minutes_later(service, 11)
        other = await new_file(service, size_bytes, "other")
        # By its own clock the other one is new, by that of the admission it would have lapsed as well.
        minutes_later(service, 0)
        assert (
            await upload(service, [start(other), chunk(0, first_bytes(size_bytes))])
        ).committed_size == len(DATA)
        minutes_later(service, 11)
        refusal = await refused(
            upload(service, [start(name), chunk(0, first_bytes(size_bytes))]), "STORAGE_FULL"
        )
        assert refusal.retry_seconds is None


async def test_room_does_not_lapse_once_a_byte_has_come(
    database_url: str, start_service: StartService
) -> None:
    async with promised(start_service, database_url) as (service, name, size_bytes):
        await upload(service, [start(name), chunk(0, first_bytes(size_bytes))])
        minutes_later(service, 60 * 24)
        await room_is_taken(service, size_bytes)
