"""A disk that is really full: a small tmpfs, filled while an upload runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from model_ingest.v1 import errors_pb2, resources_pb2
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest

from tests.conftest import StartService
from tests.ingests.calls import UploadCall, refusal
from tests.ingests.parts import eventually
from tests.support.files import MEBIBYTE, create_request, gguf, push, send, upload_messages
from tests.support.service import RunningService

SIZE = 12 * MEBIBYTE
DATA = gguf(8 * MEBIBYTE)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB. On Linux as root it has to work; elsewhere it is skipped, and said so."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs Linux and root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def free(disk: Path) -> int:
    return shutil.disk_usage(disk).free


def fill(disk: Path) -> Path:
    """Another file takes all that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as sink:
        for size in (65536, 4096, 1):
            try:
                while True:
                    sink.write(bytes(size))
            except OSError:
                continue
    assert free(disk) == 0
    return filler


async def half_an_upload(service: RunningService) -> tuple[UploadCall, str, int]:
    """An upload of which two MiB are written; answers the call, the ingest's name and what is sent."""
    ingest = await service.ingests.CreateIngest(create_request(DATA))
    messages = upload_messages(ingest.files[0].name, DATA, chunk_bytes=256 * 1024)
    call = UploadCall(service.ingests)
    await call.send(messages[:9])
    uploads = service.settings.data_dir / "uploads"
    await eventually(lambda: sum(path.stat().st_size for path in uploads.glob("*.part")) == 2 * MEBIBYTE)
    return call, ingest.name, 9


async def refused_upload(service: RunningService, disk: Path) -> tuple[grpc.StatusCode, str, str, Path]:
    """An upload that the disk is filled under; answers code and reason, the ingest's name, the filler."""
    call, name, sent = await half_an_upload(service)
    filler = fill(disk)
    ingest = await service.ingests.GetIngest(GetIngestRequest(name=name))
    await call.send(upload_messages(ingest.files[0].name, DATA, chunk_bytes=256 * 1024)[sent:])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.answer()
    return *refusal(caught.value), name, filler


async def test_a_file_that_cannot_fit_is_refused_before_a_byte_is_sent(
    small_disk: Path, start_service: StartService
) -> None:
    service = await start_service(data_dir=small_disk / "data", readiness_seconds=300, free_floor_bytes=0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.ingests.CreateIngest(create_request(SIZE))
    assert refusal(caught.value) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL")


async def test_a_disk_that_fills_up_during_an_upload_ends_it_and_gets_its_space_back(
    small_disk: Path, start_service: StartService
) -> None:
    service = await start_service(data_dir=small_disk / "data", readiness_seconds=300, free_floor_bytes=0)
    code, reason, name, filler = await refused_upload(service, small_disk)
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL")
    assert not list((small_disk / "data" / "uploads").glob("*.part"))
    assert free(small_disk) >= 2 * MEBIBYTE
    ingest = await service.ingests.GetIngest(GetIngestRequest(name=name))
    assert ingest.state == resources_pb2.Ingest.STATE_FAILED
    assert ingest.failure.reason == errors_pb2.STORAGE_FULL
    # The service lives: what fits is taken, even before somebody makes room.
    small = await push(service.ingests, gguf(MEBIBYTE), "small")
    assert small.state == resources_pb2.Ingest.STATE_STORED
    filler.unlink()
    assert (await push(service.ingests, DATA, "again")).state == resources_pb2.Ingest.STATE_STORED


async def test_a_disk_that_fills_up_with_the_database_on_it_loses_nothing_either(
    small_disk: Path, start_service: StartService
) -> None:
    url = f"sqlite+aiosqlite:///{small_disk / 'ingest.db'}"
    service = await start_service(
        data_dir=small_disk / "data", database_url=url, readiness_seconds=300, free_floor_bytes=0
    )
    before = gguf(MEBIBYTE, seed=1)
    assert (await push(service.ingests, before, "before")).state == resources_pb2.Ingest.STATE_STORED
    code, reason, name, filler = await refused_upload(service, small_disk)
    assert (code, reason) in {
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL"),
        # SQLite may say "I/O error" instead, where it cannot make its index file longer.
        (grpc.StatusCode.UNAVAILABLE, "BACKEND_DOWN"),
    }

    async def failed() -> bool:
        ingest = await service.ingests.GetIngest(GetIngestRequest(name=name))
        return bool(ingest.state == resources_pb2.Ingest.STATE_FAILED)

    # The partial's own space is enough to write that it failed: nobody has to make room first.
    await eventually(failed)
    assert not list((small_disk / "data" / "uploads").glob("*.part"))
    filler.unlink()
    assert (await push(service.ingests, DATA, "again")).state == resources_pb2.Ingest.STATE_STORED
    assert (await push(service.ingests, before, "before2")).state == resources_pb2.Ingest.STATE_STORED


async def test_a_database_without_room_refuses_calls_and_is_no_unforeseen_fault(
    small_disk: Path, start_service: StartService
) -> None:
    url = f"sqlite+aiosqlite:///{small_disk / 'ingest.db'}"
    service = await start_service(
        data_dir=small_disk / "data", database_url=url, readiness_seconds=300, free_floor_bytes=0
    )
    # One that reads alone first: SQLite's own files are there.
    assert (await push(service.ingests, gguf(MEBIBYTE), "before")).state == resources_pb2.Ingest.STATE_STORED
    filler = fill(small_disk)
    codes = set()
    for number in range(50):
        try:
            await service.ingests.CreateIngest(create_request(gguf(), f"model{number}"))
        except grpc.aio.AioRpcError as error:
            codes.add(refusal(error))
    assert codes
    assert codes <= {
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL"),
        (grpc.StatusCode.UNAVAILABLE, "BACKEND_DOWN"),
    }
    filler.unlink()
    assert (await push(service.ingests, DATA, "after")).state == resources_pb2.Ingest.STATE_STORED


async def test_a_full_database_disk_costs_an_upload_nothing(
    small_disk: Path, tmp_path: Path, start_service: StartService
) -> None:
    """Database and store on different disks: the store has room, so its bytes stay and the upload goes on."""
    url = f"sqlite+aiosqlite:///{small_disk / 'ingest.db'}"
    service = await start_service(
        data_dir=tmp_path / "data", database_url=url, readiness_seconds=300, checkpoint_bytes=MEBIBYTE
    )
    call, name, sent = await half_an_upload(service)

    async def committed() -> int:
        return int((await service.ingests.GetIngest(GetIngestRequest(name=name))).files[0].committed_size)

    async def is_safe() -> bool:
        return await committed() >= MEBIBYTE

    await eventually(is_safe)
    before = await committed()
    filler = fill(small_disk)
    ingest = await service.ingests.GetIngest(GetIngestRequest(name=name))
    messages = upload_messages(ingest.files[0].name, DATA, chunk_bytes=256 * 1024)
    await call.send(messages[sent:])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.answer()
    assert refusal(caught.value) == (grpc.StatusCode.UNAVAILABLE, "BACKEND_DOWN")
    partials = list((tmp_path / "data" / "uploads").glob("*.part"))
    assert [path.stat().st_size >= before for path in partials] == [True]
    filler.unlink()

    async def is_open_again() -> bool:
        ingest = await service.ingests.GetIngest(GetIngestRequest(name=name))
        return bool(ingest.files[0].state == resources_pb2.File.STATE_UPLOADING)

    await eventually(is_open_again)
    assert await committed() >= before
    file = await send(service.ingests, [messages[0], *messages[1 + before // (256 * 1024) :]])
    assert file.state == resources_pb2.File.STATE_STORED


async def test_a_database_disk_without_room_makes_the_service_unready(
    small_disk: Path, tmp_path: Path, start_service: StartService
) -> None:
    """A transaction can still begin there; only a write shows that nothing can be kept."""
    url = f"sqlite+aiosqlite:///{small_disk / 'ingest.db'}"
    service = await start_service(data_dir=tmp_path / "data", database_url=url, readiness_seconds=0.2)

    async def says(status: int) -> bool:
        answer = await service.health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        return bool(answer.status == status)

    filler = fill(small_disk)
    await eventually(lambda: says(health_pb2.HealthCheckResponse.NOT_SERVING))
    filler.unlink()
    await eventually(lambda: says(health_pb2.HealthCheckResponse.SERVING))
