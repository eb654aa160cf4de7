"""Whatever fails below an upload, the client hears why, and what was durable can be gone on with.

Only what makes the bytes useless fails the file; then nothing is left behind.
"""

from __future__ import annotations

import asyncio

import pytest

from ingest_service.ingests.recovery import Recovery
from ingest_service.vocabulary.errors import (
    BackendDown,
    DatabaseFull,
    DigestMismatch,
    Draining,
    IngestError,
    StorageFailed,
    StorageFull,
    UploadStalled,
)
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import File, Ingest
from ingest_service.vocabulary.states import FileState, IngestState
from tests.ingests.parts import (
    KIBIBYTE,
    Gate,
    Parts,
    check_resumable,
    clock,
    eventually,
    model_bytes,
    raising,
    send_chunks,
)
from tests.support.files import digest

DATA = model_bytes(150 * KIBIBYTE)


@pytest.fixture
def parts(parts_on_sqlite: Parts) -> Parts:
    """What fails is put in above the database, so one kind of it will do."""
    return parts_on_sqlite


async def failed(parts: Parts, ingest: Ingest) -> File:
    """Its file, failed for good, with nothing left of it."""
    after = await parts.ingests.get(ingest.id)
    assert after.state is IngestState.FAILED
    assert after.files[0].state is FileState.FAILED
    assert parts.partials() == []
    assert parts.blob(DATA) is None
    assert (parts.uploads.active, parts.uploads.held_bytes) == (0, 0)
    return after.files[0]


def reason_of(file: File) -> Reason:
    assert file.failure is not None
    return file.failure.reason


@pytest.mark.extended_unless("write", "sync")
@pytest.mark.parametrize("place", ["write", "sync", "hash"])
async def test_a_full_store_fails_the_upload_with_its_reason(parts: Parts, place: str) -> None:
    parts.hooks.before[place] = raising(StorageFull())
    ingest = await parts.create(DATA)
    with pytest.raises(StorageFull):
        await parts.push(ingest, DATA)
    parts.hooks.before.clear()
    assert reason_of(await failed(parts, ingest)) is Reason.STORAGE_FULL
    # The store is well again: so is the service.
    again = await parts.create(DATA)
    assert (await parts.push(again, DATA)).state is FileState.STORED


@pytest.mark.extended_unless("write", "sync")
@pytest.mark.parametrize("place", ["create_partial", "write", "sync", "hash"])
async def test_a_failing_store_leaves_the_upload_where_its_last_good_checkpoint_was(
    parts: Parts, place: str
) -> None:
    parts.hooks.before[place] = raising(StorageFailed())
    ingest = await parts.create(DATA)
    with pytest.raises(StorageFailed):
        await parts.push(ingest, DATA)
    parts.hooks.before.clear()
    assert await check_resumable(parts, ingest, DATA, distrusted=place in {"sync", "hash"}) == 0


async def test_a_full_disk_before_the_first_byte_leaves_the_upload_resumable_or_failed_not_in_between(
    parts: Parts,
) -> None:
    parts.hooks.before["create_partial"] = raising(StorageFull())
    ingest = await parts.create(DATA)
    with pytest.raises(StorageFull):
        await parts.push(ingest, DATA)
    parts.hooks.before.clear()
    assert await check_resumable(parts, ingest, DATA) == 0


@pytest.mark.extended_unless("error1")
@pytest.mark.parametrize("error", [StorageFull(), StorageFailed(), RuntimeError("boom")])
async def test_a_publication_that_fails_is_seen_through_by_the_next_boot_or_sweep(
    parts: Parts, error: Exception
) -> None:
    """The digest was right and the bytes are durable: there is nothing to send again."""
    parts.hooks.before["publish"] = raising(error, times=1)
    ingest = await parts.create(DATA)
    with pytest.raises(type(error)):
        await parts.push(ingest, DATA)
    await eventually(lambda: not parts.uploads._background)
    file = await parts.file(ingest)
    assert (file.state, parts.kept(file)) == (FileState.PUBLISHING, DATA)
    await Recovery(parts.database, parts.store, parts.vetting, clock=clock).of_the_dead()
    assert (await parts.file(ingest)).state is FileState.STORED
    assert parts.blob(DATA) == DATA


@pytest.mark.extended_unless("sync")
@pytest.mark.parametrize("place", ["create_partial", "write", "sync", "hash"])
async def test_an_unforeseen_fault_is_logged_and_costs_no_durable_byte(
    parts: Parts, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    parts.hooks.before[place] = raising(RuntimeError("secret"))
    ingest = await parts.create(DATA)
    with pytest.raises(RuntimeError):
        await parts.push(ingest, DATA)
    if place != "create_partial":
        assert "RuntimeError: secret" in caplog.text
    parts.hooks.before.clear()
    await check_resumable(parts, ingest, DATA, distrusted=place in {"sync", "hash"})


@pytest.mark.extended_unless("error0")
@pytest.mark.parametrize("error", [Draining(), UploadStalled(), BackendDown(), RuntimeError("boom")])
async def test_an_upload_that_was_cut_off_keeps_all_that_came_whoever_cut_it(
    parts: Parts, error: Exception
) -> None:
    ingest = await parts.create(DATA)

    async def end() -> Exception:
        return error

    with pytest.raises(type(error)):
        await parts.send_until(ingest, DATA, end)
    assert await check_resumable(parts, ingest, DATA) == len(DATA)


async def test_a_clean_up_that_fails_does_not_hide_why_the_upload_failed(parts: Parts) -> None:
    parts.hooks.before["remove_partial"] = raising(StorageFailed("the clean-up"), times=1)
    ingest = await parts.create(DATA)
    with pytest.raises(DigestMismatch):
        await parts.push(ingest, DATA, sha256=digest(b"other"))
    assert reason_of(await parts.file(ingest)) is Reason.DIGEST_MISMATCH


async def test_a_word_of_stored_bytes_is_brought_to_the_database_with_patience(parts: Parts) -> None:
    """The bytes are published; the database is away for a moment."""
    parts.new_uploads(finish_wait_seconds=0.1)
    gate = parts.hooks.before["publish"] = Gate()
    ingest = await parts.create(DATA)
    pushed = asyncio.create_task(parts.push(ingest, DATA))
    await gate.reached.wait()
    assert (await pushed).state is not FileState.STORED
    assert (await parts.file(ingest)).state is FileState.PUBLISHING
    parts.hooks.before["transact"] = raising(BackendDown(), times=3)
    former = parts.hooks.calls["transact"]
    gate.open()
    await eventually_stored(parts, ingest)
    assert parts.hooks.calls["transact"] == former + 4
    assert parts.blob(DATA) == DATA


async def test_patience_ends_with_the_service_and_the_bytes_stay(parts: Parts) -> None:
    parts.new_uploads(finish_wait_seconds=0.1)
    gate = parts.hooks.before["publish"] = Gate()
    ingest = await parts.create(DATA)
    pushed = asyncio.create_task(parts.push(ingest, DATA))
    await gate.reached.wait()
    await pushed
    stopping = asyncio.Event()
    last_try = raising(BackendDown(), times=1)

    async def away() -> None:
        if not stopping.is_set():
            raise BackendDown
        await last_try()

    parts.hooks.before["transact"] = away
    former = parts.hooks.calls["transact"]
    gate.open()
    await eventually(lambda: parts.hooks.calls["transact"] > former)
    stopping.set()
    async with asyncio.timeout(30):
        await parts.uploads.close()
    parts.hooks.before.clear()
    # A boot finishes it: nothing said that it failed.
    assert (await parts.file(ingest)).state is FileState.PUBLISHING
    assert parts.blob(DATA) == DATA


@pytest.mark.extended_unless("full-write", "away-create_partial")
@pytest.mark.parametrize("place", ["write", "create_partial"])
@pytest.mark.parametrize("away", [BackendDown(), StorageFull()], ids=["away", "full"])
async def test_an_upload_that_fails_while_the_database_is_away_can_go_on_when_it_is_back(
    parts: Parts, place: str, away: IngestError
) -> None:
    # A window that is full: the upload hears of the failed write while it sends.
    parts.new_uploads(window_bytes=100 * KIBIBYTE)
    ingest = await parts.create(DATA)

    async def all_at_once() -> None:
        parts.hooks.before["transact"] = raising(away, times=4)
        raise StorageFailed

    parts.hooks.before[place] = all_at_once
    with pytest.raises(StorageFailed):
        await parts.push(ingest, DATA)
    parts.hooks.before.pop(place)
    await eventually(lambda: not parts.uploads._background)
    parts.hooks.before.clear()
    assert await check_resumable(parts, ingest, DATA) == 0


async def test_a_full_database_does_not_keep_the_partial_that_fills_its_disk(parts: Parts) -> None:
    ingest = await parts.create(DATA)

    async def fill() -> Exception:
        assert parts.partials() != []
        parts.hooks.before["transact"] = Full(parts)
        return StorageFull()

    with pytest.raises(StorageFull):
        await parts.send_until(ingest, DATA, fill)
    assert reason_of(await failed(parts, ingest)) is Reason.STORAGE_FULL


class Full:
    """A database on the store's disk: it has room again once the partial has no uncommitted bytes."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(self) -> None:
        if any(path.stat().st_size for path in self._parts.data_dir.glob("uploads/*.part")):
            raise DatabaseFull


async def test_a_full_database_ends_no_upload(parts: Parts) -> None:
    """Its disk is not the store's: the bytes are safe, and the upload goes on once there is room."""
    ingest = await parts.create(DATA)

    async def fill() -> Exception:
        parts.hooks.before["transact"] = raising(DatabaseFull(), times=3)
        return DatabaseFull()

    with pytest.raises(DatabaseFull):
        await parts.send_until(ingest, DATA, fill)
    # What was written after the last row that the database took was never acknowledged.
    await check_resumable(parts, ingest, DATA, distrusted=True)


async def test_a_partial_goes_only_after_its_row_says_failed(parts: Parts) -> None:
    ingest = await parts.create(DATA)
    seen: list[bool] = []

    async def full() -> None:
        seen.append(bool(parts.partials()))
        if len(seen) < 4:
            raise DatabaseFull

    async def fill() -> Exception:
        parts.hooks.before["transact"] = full
        return StorageFull()

    with pytest.raises(StorageFull):
        await parts.send_until(ingest, DATA, fill)
    assert reason_of(await failed(parts, ingest)) is Reason.STORAGE_FULL
    assert len(seen) >= 4
    assert all(seen)


async def test_an_interrupted_upload_ends_although_the_service_stops_without_its_database(
    parts: Parts,
) -> None:
    ingest = await parts.create(DATA)
    async with parts.uploads.receive(ingest.id, "model.gguf") as upload:
        await send_chunks(upload, DATA)
        parts.hooks.before["transact"] = raising(BackendDown())
        # No client waits for what follows, the stop does: for one last try, not for the database.
        stopping = asyncio.create_task(parts.uploads.drain(0))
        await stopping
        closing = asyncio.create_task(parts.uploads.close())
    async with asyncio.timeout(30):
        await closing
        await parts.uploads.close()
    parts.hooks.before.clear()
    assert (await parts.file(ingest)).state is FileState.UPLOADING
    assert parts.uploads.held_bytes == 0


async def eventually_stored(parts: Parts, ingest: Ingest) -> None:
    async def stored() -> bool:
        return (await parts.file(ingest)).state is FileState.STORED

    await eventually(stored)
