"""A time that a clock a day ahead wrote down is not believed for a day."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ingest_service.database import Database
from ingest_service.vocabulary.states import FileState, IngestState
from tests.database.records import NOON, deployment, digest, file, get, ingest, insert, later, sql
from tests.support.formats import ACCEPTED

pytestmark = pytest.mark.extended_when("postgresql")
DAY = timedelta(days=1)
TOMORROW = NOON + DAY


async def test_room_for_a_file_that_was_declared_tomorrow_is_not_kept(database: Database) -> None:
    await insert(
        database,
        ingest(file(FileState.PENDING, size_bytes=1000, progress_at=TOMORROW)),
        # Clocks of two processes differ a little.
        ingest(file(FileState.PENDING, size_bytes=7, progress_at=later(30))),
    )
    assert await database.read(lambda tx: tx.files.reserved_bytes(later(-600), NOON)) == 7


async def test_progress_of_tomorrow_is_progress_of_now(database: Database) -> None:
    parts = [file(state, file_name=f"{state}.gguf", progress_at=TOMORROW) for state in FileState]
    ahead, fresh = ingest(*parts), ingest(file(progress_at=later(30)))
    await insert(database, ahead, fresh)
    await database.transact(lambda tx: tx.files.correct_times_ahead(NOON))
    assert {one.progress_at for one in (await get(database, ahead)).files} == {NOON}
    assert (await get(database, fresh)).files == fresh.files
    assert await database.read(lambda tx: tx.files.without_progress_since(NOON, 10)) == []
    assert len(await database.read(lambda tx: tx.files.without_progress_since(later(1), 10))) == 2


async def test_a_blob_that_was_made_tomorrow_was_made_now(database: Database) -> None:
    await database.transact(lambda tx: tx.blobs.make_live(digest(1), 100, ACCEPTED, TOMORROW))
    await database.transact(lambda tx: tx.blobs.correct_times_ahead(NOON))
    assert await database.read(lambda tx: tx.blobs.unreferenced(NOON)) == []
    assert len(await database.read(lambda tx: tx.blobs.unreferenced(later(1)))) == 1


async def test_a_blob_that_was_read_tomorrow_is_due_to_be_read(database: Database) -> None:
    await database.transact(lambda tx: tx.blobs.make_live(digest(1), 100, ACCEPTED, TOMORROW))
    await database.transact(lambda tx: tx.blobs.make_live(digest(2), 100, ACCEPTED, later(30)))
    due = await database.read(lambda tx: tx.blobs.not_verified_since(NOON - DAY, NOON, 10))
    assert [blob.sha256 for blob in due] == [digest(1)]


async def test_a_target_that_was_served_tomorrow_is_served_for_its_span_from_now(database: Database) -> None:
    await database.transact(lambda tx: tx.targets.serve(["a"]))
    await sql(database, "UPDATE targets SET served_at_us = served_at_us + 86400000000")
    await database.transact(lambda tx: tx.targets.correct_times_ahead())
    assert await database.read(lambda tx: tx.targets.served_within(600)) == {"a"}
    # As if its span had passed since.
    await sql(database, "UPDATE targets SET served_at_us = served_at_us - 601000000")
    assert await database.read(lambda tx: tx.targets.served_within(600)) == set()


async def test_what_waits_for_tomorrow_on_a_target_that_nobody_serves_is_found(database: Database) -> None:
    ahead = ingest(file(FileState.STORED), deployment(next_attempt_at=TOMORROW), state=IngestState.FORWARDING)
    stored = ingest(file(FileState.STORED), deployment(), state=IngestState.FORWARDING, created_at=TOMORROW)
    soon = ingest(
        file(FileState.STORED), deployment(next_attempt_at=later(500)), state=IngestState.FORWARDING
    )
    await insert(database, ahead, stored, soon)
    found = await database.read(lambda tx: tx.deployments.unserved([], later(-600), later(600)))
    assert {lease.ingest_id for lease in found} == {ahead.id, stored.id}
