"""Expiry and removal: what nobody goes on with frees its space; what is alive or referred to is not touched.

Breaks when: the sweep does not ask for the file's lock or does not re-read its row, counts a reference
wrongly, goes on beyond the brake, or writes in a dry run. Time is the sweeper's clock, moved by the tests.
"""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from model_ingest.v1 import errors_pb2, resources_pb2

from ingest_service.app import now
from ingest_service.ingests.sweep import SweepReport
from ingest_service.vocabulary.states import FileState
from tests.conftest import StartService
from tests.faults.client import STORED, UPLOADING, get, messages, reason_of, upload
from tests.faults.crash_states import wreck
from tests.faults.invariants import blob_names, partials
from tests.support.files import create_request, digest, gguf, push
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

DATA = gguf(300_000)
HALF = 150_000


async def sweep(service: RunningService, *, days_later: float = 0, **options: bool) -> SweepReport:
    """One sweep, as if so much later."""
    sweeper = service.service.sweeper
    sweeper._clock = lambda: now() + timedelta(days=days_later)
    report = await sweeper.run(**options)
    assert report is not None
    return report


async def test_an_upload_that_nobody_goes_on_with_expires_and_frees_its_space(
    database_url: str, start_service: StartService
) -> None:
    service = await start_service(database_url=database_url)
    left = await wreck(service, DATA, committed=HALF, partial=DATA[:HALF])
    pending = await service.ingests.CreateIngest(create_request(DATA, "pending"))
    assert (await sweep(service, days_later=6.9)).expired_ingests == []
    assert left.partial.exists()
    report = await sweep(service, days_later=7.1)
    assert sorted(report.expired_ingests) == sorted(
        name.removeprefix("ingests/") for name in (left.ingest, pending.name)
    )
    assert partials(left.data_dir) == []
    for name in (left.ingest, pending.name):
        ingest = await get(service.ingests, name)
        assert ingest.state == resources_pb2.Ingest.STATE_EXPIRED
        assert ingest.failure.reason == errors_pb2.UPLOAD_EXPIRED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await upload(service.ingests, messages(left.name, DATA))
    assert reason_of(caught.value) == "UPLOAD_EXPIRED"
    assert await service.service.database.read(lambda tx: tx.files.reserved_bytes(now(), now())) == 0


async def test_the_running_service_expires_by_itself(start_service: StartService) -> None:
    service = await start_service(upload_expiry_seconds=1, sweep_seconds=0.2)
    left = await wreck(service, DATA, committed=HALF, partial=DATA[:HALF])
    async with asyncio.timeout(30):
        while (await get(service.ingests, left.name)).state != resources_pb2.Ingest.STATE_EXPIRED:
            await asyncio.sleep(0.05)
        # It goes after the state is told.
        while partials(left.data_dir):
            await asyncio.sleep(0.05)


async def test_a_live_upload_is_not_expired_however_slow(
    database_url: str, start_service: StartService
) -> None:
    service = await start_service(database_url=database_url)
    ingest = await service.ingests.CreateIngest(create_request(DATA))
    call = service.ingests.Upload(timeout=60)
    sent = messages(ingest.files[0].name, DATA, chunk_bytes=100_000)
    for message in sent[:2]:
        await call.write(message)
    async with asyncio.timeout(30):
        while not partials(service.settings.data_dir):
            await asyncio.sleep(0.01)
    assert (await sweep(service, days_later=30)).expired_ingests == []
    for message in sent[2:]:
        await call.write(message)
    await call.done_writing()
    assert (await call).state == STORED


async def test_a_dry_run_says_the_same_and_changes_nothing(
    database_url: str, start_service: StartService
) -> None:
    service = await start_service(database_url=database_url)
    left = await wreck(service, DATA, committed=HALF, partial=DATA[:HALF])
    before = await get(service.ingests, left.ingest)
    report = await sweep(service, days_later=8, dry_run=True)
    assert report.expired_ingests == [left.ingest.removeprefix("ingests/")]
    assert await get(service.ingests, left.ingest) == before
    assert left.partial.read_bytes() == DATA[:HALF]
    assert (await sweep(service, days_later=8)).expired_ingests == report.expired_ingests


async def test_a_file_of_a_dead_process_is_put_right_by_the_next_sweep(
    database_url: str, start_service: StartService
) -> None:
    service = await start_service(database_url=database_url)
    verifying = await wreck(service, DATA, state=FileState.VERIFYING, committed=HALF, partial=DATA)
    other = gguf(200_000, seed=1)
    publishing = await wreck(service, other, state=FileState.PUBLISHING, partial=other, model="other")
    await sweep(service)
    assert (await get(service.ingests, verifying.name)).files[0].state == UPLOADING
    assert (await get(service.ingests, publishing.name)).files[0].state == STORED
    assert publishing.blob.read_bytes() == other


async def unreferred(service: RunningService, sizes: list[int]) -> list[str]:
    """Stored blobs whose ingests are gone, as history clean-up will leave them."""
    digests = []
    for number, size in enumerate(sizes):
        data = gguf(size, seed=100 + number)
        await push(service.ingests, data, f"gone{number}")
        digests.append(digest(data))

    async def forget(tx: object) -> None:
        from sqlalchemy import update

        from ingest_service.database.tables import files

        statement = update(files).where(files.c.sha256.in_(digests)).values(state="FAILED")
        await tx.files._statements.run(statement)  # type: ignore[attr-defined]

    await service.service.database.transact(forget)
    return digests


async def test_bytes_that_nobody_refers_to_go_after_their_grace_and_no_others(
    database_url: str, start_service: StartService
) -> None:
    service = await start_service(database_url=database_url)
    kept = gguf(500_000)
    await push(service.ingests, kept, "kept")
    (gone,) = await unreferred(service, [20_000])
    assert (await sweep(service, days_later=0.9)).removed_blobs == []
    assert (await sweep(service, days_later=1.1, dry_run=True)).removed_blobs == [gone]
    assert len(blob_names(service.settings.data_dir)) == 2
    report = await sweep(service, days_later=1.1)
    assert (report.removed_blobs, report.removed_bytes) == ([gone], 20_000)
    assert blob_names(service.settings.data_dir) == {digest(kept).replace(":", "-")}
    assert await service.service.database.read(lambda tx: tx.blobs.known([gone])) == set()


async def test_more_than_a_tenth_of_the_store_is_removed_only_when_told_to(
    database_url: str, start_service: StartService, caplog: pytest.LogCaptureFixture
) -> None:
    service = await start_service(database_url=database_url)
    await push(service.ingests, gguf(500_000), "kept")
    gone = await unreferred(service, [40_000, 30_000])
    report = await sweep(service, days_later=2)
    assert report.removed_blobs == []
    assert "more than a tenth" in report.stopped
    assert "brake" in caplog.text
    assert len(blob_names(service.settings.data_dir)) == 3
    report = await sweep(service, days_later=2, beyond_brake=True)
    assert sorted(report.removed_blobs) == sorted(gone)
    assert len(blob_names(service.settings.data_dir)) == 1


async def test_one_process_sweeps_at_a_time(
    database_url: str, start_service: StartService, tmp_path: Path
) -> None:
    first = await start_service(database_url=database_url)
    second = await start_service(database_url=database_url)
    sweeper, reached, go_on = first.service.sweeper, asyncio.Event(), asyncio.Event()

    async def slow(*_: object) -> None:
        reached.set()
        await go_on.wait()

    sweeper._recovery.of_the_dead = slow
    running = asyncio.create_task(sweeper.run())
    await reached.wait()
    try:
        assert await second.service.sweeper.run() is None
    finally:
        go_on.set()
    assert await running is not None
    assert await second.service.sweeper.run() is not None


async def test_times_of_tomorrow_hold_nothing_for_longer_than_times_of_now(
    database_url: str, start_service: StartService
) -> None:
    service = await start_service(database_url=database_url)
    left = await wreck(service, DATA, committed=HALF, partial=DATA[:HALF])
    await push(service.ingests, gguf(500_000), "kept")
    (gone,) = await unreferred(service, [20_000])

    async def written_ahead(tx: object) -> None:
        from sqlalchemy import update

        from ingest_service.database.tables import blobs, files

        ahead = now() + timedelta(days=100)
        await tx.files._statements.run(update(files).values(progress_at=ahead))  # type: ignore[attr-defined]
        await tx.files._statements.run(update(blobs).values(created_at=ahead))  # type: ignore[attr-defined]

    await service.service.database.transact(written_ahead)
    # A dry run corrects nothing.
    await sweep(service, dry_run=True)
    assert (await sweep(service, days_later=8, dry_run=True)).expired_ingests == []
    report = await sweep(service)
    assert (report.expired_ingests, report.removed_blobs) == ([], [])
    report = await sweep(service, days_later=8)
    assert report.expired_ingests == [left.ingest.removeprefix("ingests/")]
    assert report.removed_blobs == [gone]


@pytest.mark.parametrize("ahead_seconds", [90_000.0, pytest.param(-90_000.0, marks=pytest.mark.extended)])
async def test_a_wrong_clock_gives_nothing_up(
    service: RunningService, monkeypatch: pytest.MonkeyPatch, ahead_seconds: float
) -> None:
    """Of another host than the database's."""
    await wreck(service, DATA, committed=HALF, partial=DATA[:HALF])
    await push(service.ingests, gguf(500_000), "kept")
    await unreferred(service, [20_000])
    monkeypatch.setattr("ingest_service.ingests.sweep._host_seconds", lambda: time.time() + ahead_seconds)
    report = await sweep(service, days_later=8)
    assert (report.expired_ingests, report.removed_blobs) == ([], [])
    assert "differs from the database" in report.stopped
    monkeypatch.undo()
    report = await sweep(service, days_later=8)
    assert (len(report.expired_ingests), len(report.removed_blobs)) == (1, 1)
