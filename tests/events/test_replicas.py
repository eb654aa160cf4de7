"""Who watches a replica that does none of the work sees every number once, and at once.

"At once" is proved without a clock: polls are switched off, so that only a hint can have told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from model_ingest.v1 import resources_pb2
from model_ingest.v1.ingest_service_pb2 import (
    CancelIngestRequest,
    GetIngestRequest,
    UploadRequest,
    UploadStart,
    WatchIngestRequest,
)

from ingest_service.vocabulary.records import NewEvent
from tests.faults.client import messages, reason_of
from tests.ollama_emulator import OllamaEmulator
from tests.support.files import MEBIBYTE, create_request, gguf, push, send, upload_messages
from tests.support.postgres import PostgresCluster
from tests.support.service import RunningService, ServiceProcess, environment, settings_for
from tests.support.stubs import IngestStub, ingest_stub

BOUND_SECONDS = 90.0
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


async def numbers(stub: IngestStub, name: str, started: asyncio.Event | None = None) -> list[int]:
    """Watches to the end."""
    seen = []
    async for item in stub.WatchIngest(WatchIngestRequest(name=name), timeout=BOUND_SECONDS):
        if started is not None:
            started.set()
        if item.HasField("event"):
            seen.append(item.event.sequence)
    return seen


@contextlib.asynccontextmanager
async def replicas(
    url: str, directory: Path, count: int = 2, targets: str = "", **settings: Any
) -> AsyncIterator[list[RunningService]]:
    """Services on one database and one directory; none claims deployments unless nudged by a hint."""
    async with contextlib.AsyncExitStack() as stack:
        services = []
        for _ in range(count):
            running = RunningService(settings_for(directory, url, targets, **settings))
            worker = running.service.worker
            worker._settings = replace(worker._settings, poll_seconds=3600.0)
            services.append(await stack.enter_async_context(running))
        async with asyncio.timeout(BOUND_SECONDS):
            while not all(service.service.hints.is_connected for service in services):
                await asyncio.sleep(0.01)
        yield services


@pytest.fixture
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest_service.events.feed._POLL_SECONDS", 3600.0)
    monkeypatch.setattr("ingest_service.ingests.uploads._WATCH_SECONDS", 3600.0)


async def tell(service: RunningService, name: str, count: int) -> None:
    """Adds events, as the work of that replica would."""

    async def work(tx: Any) -> None:
        before = await tx.ingests.lock(name.removeprefix("ingests/"))
        news = [NewEvent("notice", {"message": "n"})] * count
        await tx.ingests.save(before, before, news, before.updated_at)

    await service.service.database.transact(work)


@pytest.mark.extended
@pytest.mark.parametrize("servers", [2, 3])
async def test_processes_show_the_work_of_another(
    database_url: str, tmp_path: Path, emulator: OllamaEmulator, servers: int
) -> None:
    working = environment(tmp_path / "data", database_url, f"default={emulator.url}")
    # The others know no target, so they cannot do the work.
    watching = environment(tmp_path / "data", database_url)
    data = gguf(2 * MEBIBYTE)
    async with contextlib.AsyncExitStack() as stack:
        processes = []
        for number in range(servers):
            process = ServiceProcess(watching if number else working, tmp_path / f"log{number}")
            processes.append(await stack.enter_async_context(process))
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(one.address, options=OWN_CONNECTION))
            for one in processes
        ]
        stubs = [ingest_stub(channel) for channel in channels]
        ingest = await stubs[0].CreateIngest(create_request(data))
        watches = [asyncio.create_task(numbers(stub, ingest.name)) for stub in stubs[1:] for _ in range(3)]
        await send(stubs[0], upload_messages(ingest.files[0].name, data))
        async with asyncio.timeout(BOUND_SECONDS):
            seen = await asyncio.gather(*watches)
        end = await stubs[-1].GetIngest(GetIngestRequest(name=ingest.name))
        assert end.state == resources_pb2.Ingest.STATE_READY
        assert end.last_sequence >= 8
        assert all(one == list(range(1, end.last_sequence + 1)) for one in seen)


@pytest.mark.extended_when("sqlite")
@pytest.mark.usefixtures("no_polls")
async def test_events_arrive_by_hints_alone(database_url: str, tmp_path: Path) -> None:
    async with replicas(database_url, tmp_path / "data", 3) as (worker, *others):
        ingest = await worker.ingests.CreateIngest(create_request(1000))
        calls = [
            other.ingests.WatchIngest(WatchIngestRequest(name=ingest.name), timeout=BOUND_SECONDS)
            for other in others
        ]
        seen: list[list[int]] = [[] for _ in calls]
        for count in (1, 1, 5, 300, 1):
            await tell(worker, ingest.name, count)
            last = (await worker.ingests.GetIngest(GetIngestRequest(name=ingest.name))).last_sequence
            for call, found in zip(calls, seen, strict=True):
                while not found or found[-1] < last:
                    item: Any = await call.read()
                    found.extend([item.event.sequence] if item.HasField("event") else [])
        await worker.ingests.CancelIngest(CancelIngestRequest(name=ingest.name))
        for call, found in zip(calls, seen, strict=True):
            while (item := await call.read()) is not grpc.aio.EOF:
                found.extend([item.event.sequence] if item.HasField("event") else [])
            assert found == list(range(1, found[-1] + 1))


@pytest.mark.extended_when("sqlite")
async def test_progress_of_another_replica_is_seen_by_polling(database_url: str, tmp_path: Path) -> None:
    data = gguf(3 * MEBIBYTE)
    async with replicas(
        database_url, tmp_path / "data", checkpoint_bytes=MEBIBYTE, checkpoint_seconds=0.05
    ) as (worker, other):
        ingest = await worker.ingests.CreateIngest(create_request(data))
        watch = other.ingests.WatchIngest(WatchIngestRequest(name=ingest.name), timeout=BOUND_SECONDS)
        upload = worker.ingests.Upload(timeout=BOUND_SECONDS)
        for message in messages(ingest.files[0].name, data[: 2 * MEBIBYTE], finish=False):
            await upload.write(message)
        shown = 0
        while shown < 2 * MEBIBYTE:
            item: Any = await watch.read()
            if item.progress.files:
                shown = item.progress.files[0].committed_size
        # It was no event: 1 created, 2 the file receives, 3 its header is sound.
        now = await other.ingests.GetIngest(GetIngestRequest(name=ingest.name))
        assert now.last_sequence <= 3
        upload.cancel()
        watch.cancel()


@pytest.mark.extended_when("sqlite")
@pytest.mark.usefixtures("no_polls")
async def test_a_stored_model_is_deployed_by_another_replica_at_once(
    database_url: str, tmp_path: Path, emulator: OllamaEmulator
) -> None:
    async with replicas(database_url, tmp_path / "data", targets=f"default={emulator.url}") as (one, two):
        # It takes the bytes, and its worker is gone.
        await one.service.worker.stop()
        async with asyncio.timeout(BOUND_SECONDS):
            ingest = await push(one.ingests, gguf(MEBIBYTE))
        assert ingest.state == resources_pb2.Ingest.STATE_READY
        assert two.service.worker._settings.poll_seconds == 3600.0


@pytest.mark.usefixtures("no_polls")
async def test_the_holder_of_an_upload_hears_of_its_successor(postgres_url: str, tmp_path: Path) -> None:
    data = gguf(2 * MEBIBYTE)
    async with replicas(postgres_url, tmp_path / "data") as (one, two):
        ingest = await one.ingests.CreateIngest(create_request(data))
        held = one.ingests.Upload(timeout=BOUND_SECONDS)
        for message in messages(ingest.files[0].name, data[:MEBIBYTE], finish=False):
            await held.write(message)
        async with asyncio.timeout(BOUND_SECONDS):
            while not one.service.uploads.active:
                await asyncio.sleep(0.01)
        successor = two.ingests.Upload(timeout=BOUND_SECONDS)
        await successor.write(UploadRequest(start=UploadStart(file=ingest.files[0].name)))
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await held
        assert reason_of(ended.value) == "WRITER_SUPERSEDED"
        for message in messages(ingest.files[0].name, data)[1:]:
            await successor.write(message)
        await successor.done_writing()
        assert (await successor).state == resources_pb2.File.STATE_STORED


async def test_a_replica_whose_hints_are_cut_misses_nothing(
    postgres: PostgresCluster, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest_service.events.feed._POLL_SECONDS", 3600.0)
    name = postgres_url.rpartition("/")[2]
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{name}' AND application_name = 'model-ingest-listen'"
    )
    async with replicas(postgres_url, tmp_path / "data") as (worker, other):
        ingest = await worker.ingests.CreateIngest(create_request(1000))
        started = asyncio.Event()
        watching = asyncio.create_task(numbers(other.ingests, ingest.name, started))
        await started.wait()
        for _ in range(5):
            await tell(worker, ingest.name, 3)
            await asyncio.to_thread(postgres.sql, cut)
            # Told while nobody listens, or just about: the new connection has everybody look.
            await tell(worker, ingest.name, 3)
        end = await worker.ingests.CancelIngest(CancelIngestRequest(name=ingest.name))
        async with asyncio.timeout(BOUND_SECONDS):
            assert await watching == list(range(1, end.last_sequence + 1))
        listening = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
        listening += " AND application_name = 'model-ingest-listen'"
        async with asyncio.timeout(BOUND_SECONDS):
            while int(await asyncio.to_thread(postgres.sql, listening)) != 2:
                await asyncio.sleep(0.05)
