"""The scheduled verify: what is due, the longest ago first, one process at a time, and what it says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest_service.blobs import Rehasher
from ingest_service.database import Database
from ingest_service.ingests import verify_rounds
from ingest_service.ingests.verify_rounds import VerifyReport, VerifyRounds, VerifySettings
from ingest_service.storage import LocalScanner
from ingest_service.vocabulary.errors import BackendDown, StorageFailed
from ingest_service.vocabulary.states import BlobState
from tests.blobs.parts import SQLITE, Kept, Steered, damage, now, until
from tests.support.files import gguf

pytestmark = pytest.mark.extended_when("postgresql")

DAY = 86400.0
DATA = [gguf(5000, seed=seed) for seed in range(30, 43)]


@pytest.fixture
def kept(database: Database, tmp_path: Path) -> Kept:
    return Kept(database, tmp_path / "data")


@pytest.fixture
def steered(tmp_path: Path) -> Iterator[Steered]:
    scanner = LocalScanner(tmp_path / "data")
    yield Steered(scanner)
    scanner.close()


@pytest.fixture
async def rehasher(database: Database, steered: Steered) -> AsyncIterator[Rehasher]:
    made = Rehasher(database, steered, clock=now)
    yield made
    await made.close()


def rounds(
    kept: Kept, rehasher: Rehasher, owner: str = "a", *, days: float = 30, **settings: Any
) -> VerifyRounds:
    wanted = VerifySettings(age_seconds=days * DAY, bytes_per_second=0, **settings)
    return VerifyRounds(kept.database, rehasher, wanted, owner=owner, clock=now)


async def put(kept: Kept, index: int, days_ago: float) -> str:
    return await kept.put(DATA[index], verified_at=now() - timedelta(days=days_ago))


async def test_what_is_due_is_read_the_longest_ago_first(
    kept: Kept, rehasher: Rehasher, steered: Steered, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    middle, oldest, youngest = [await put(kept, index, days) for index, days in enumerate((50, 90, 31))]
    fresh = await put(kept, 3, 29)
    report = await rounds(kept, rehasher).run()
    assert steered.pieces == [oldest, middle, youngest]
    assert report == VerifyReport(read_blobs=3, read_bytes=15_000)
    assert all([(await kept.row(one)).verified_at > now() - timedelta(days=1) for one in (oldest, middle)])  # type: ignore[operator]
    assert (await kept.row(fresh)).verified_at < now() - timedelta(days=28)  # type: ignore[operator]
    (summary,) = [one for one in caplog.records if one.message == "stored blobs were read again"]
    assert (summary.__dict__["blobs"], summary.__dict__["bytes"]) == (3, 15_000)
    # Nothing is due any more, and nothing is said.
    assert await rounds(kept, rehasher).run() == VerifyReport()
    assert len([one for one in caplog.records if one.message == "stored blobs were read again"]) == 1


@SQLITE
async def test_rot_is_found_and_read_no_more(
    kept: Kept, rehasher: Rehasher, steered: Steered, caplog: pytest.LogCaptureFixture
) -> None:
    rotten, sound = await put(kept, 0, 50), await put(kept, 1, 40)
    damage(kept.path(DATA[0]), "flipped")
    report = await rounds(kept, rehasher).run()
    assert report is not None
    assert (report.read_blobs, report.rotten) == (2, [rotten])
    assert [(await kept.row(one)).state for one in (rotten, sound)] == [BlobState.CORRUPT, BlobState.LIVE]
    assert [one.__dict__["sha256"] for one in caplog.records if one.levelno == logging.ERROR] == [rotten]
    steered.pieces.clear()
    await rounds(kept, rehasher).run()
    assert steered.pieces == []


async def test_one_process_at_a_time(kept: Kept, rehasher: Rehasher, steered: Steered) -> None:
    sha256 = await put(kept, 0, 50)
    steered.may_read.clear()
    first = asyncio.create_task(rounds(kept, rehasher, "a").run())
    await until(lambda: steered.pieces == [sha256])
    assert await rounds(kept, rehasher, "b").run() is None
    steered.may_read.set()
    assert (await first) == VerifyReport(read_blobs=1, read_bytes=5000)
    # It gave the lease up before its time.
    assert await rounds(kept, rehasher, "b").run() == VerifyReport()


async def test_who_has_lost_the_lease_stops(
    kept: Kept, rehasher: Rehasher, steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that stood still for longer than its lease: another one is at work by now."""
    monkeypatch.setattr(verify_rounds, "_RENEW_SECONDS", 0.01)
    sha256 = await put(kept, 0, 50)
    steered.may_read.clear()
    first = asyncio.create_task(rounds(kept, rehasher, "a").run())
    await until(lambda: steered.pieces == [sha256])
    name = verify_rounds._LEASE
    await kept.database.transact(lambda tx: tx.store.release_lease(name, "a"))
    while not await kept.database.transact(lambda tx: tx.store.take_lease(name, "b", 60)):
        await kept.database.transact(lambda tx: tx.store.release_lease(name, "a"))
    assert await first == VerifyReport()
    assert steered.open_scans == 0


@SQLITE
async def test_a_stop_and_a_start_go_on_where_it_was(
    kept: Kept, rehasher: Rehasher, steered: Steered
) -> None:
    first, second = await put(kept, 0, 50), await put(kept, 1, 40)

    async def at_the_second() -> None:
        if steered.pieces[-1] == second:
            await asyncio.Event().wait()

    steered.before_piece = at_the_second
    running = rounds(kept, rehasher)
    running.start()
    await until(lambda: steered.pieces == [first, second])
    await running.stop()
    steered.before_piece = None
    assert await rounds(kept, rehasher, "after the restart").run() == VerifyReport(1, 5000)
    assert steered.pieces == [first, second, second]


@SQLITE
async def test_off_by_default(kept: Kept, rehasher: Rehasher, steered: Steered) -> None:
    await put(kept, 0, 5000)
    off = rounds(kept, rehasher, days=VerifySettings().age_seconds)
    off.start()
    assert off._task is None
    await off.stop()


@SQLITE
async def test_a_blob_that_cannot_be_read_is_tried_once_a_round(
    kept: Kept, rehasher: Rehasher, steered: Steered
) -> None:
    bad, good = await put(kept, 0, 50), await put(kept, 1, 40)

    async def fails() -> None:
        if steered.pieces[-1] == bad:
            raise StorageFailed

    steered.before_piece = fails
    report = await rounds(kept, rehasher).run()
    assert report == VerifyReport(read_blobs=1, read_bytes=5000, unreadable=[bad])
    assert steered.pieces == [bad, good]


@SQLITE
async def test_a_disk_that_fails_for_everything_is_not_asked_for_everything(
    kept: Kept, rehasher: Rehasher, steered: Steered
) -> None:
    for index in range(len(DATA)):
        await put(kept, index, 50)

    async def fails() -> None:
        raise StorageFailed

    steered.before_piece = fails
    report = await rounds(kept, rehasher).run()
    assert report is not None
    assert len(report.unreadable) == len(steered.pieces) == 10


@SQLITE
async def test_a_fault_does_not_end_the_rounds(
    kept: Kept, rehasher: Rehasher, steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_rounds, "_LOOK_SECONDS", 0.01)
    sha256 = await put(kept, 0, 50)
    faults: list[Exception] = [RuntimeError("unforeseen"), BackendDown()]

    async def fails() -> None:
        if faults:
            raise faults.pop()

    steered.before_piece = fails
    running = rounds(kept, rehasher)
    running.start()
    await until(lambda: len(steered.pieces) == 3)
    while (await kept.row(sha256)).verified_at < now() - timedelta(days=1):  # type: ignore[operator]
        await asyncio.sleep(0.005)
    await running.stop()
