"""Leases, room that is promised, uploads that stand still: what admission, sweep and expiry ask."""

from __future__ import annotations

import asyncio

import pytest

from ingest_service.database import Conflict, Database
from ingest_service.vocabulary.states import FileState
from tests.database.records import file, ingest, insert, later, sql


async def _take(database: Database, owner: str, seconds: float = 600.0) -> bool:
    try:
        return await database.transact(lambda tx: tx.store.take_lease("sweep", owner, seconds))
    except Conflict:
        return False


async def test_a_lease_has_one_owner_until_it_runs_out(database: Database) -> None:
    assert await _take(database, "a")
    assert not await _take(database, "b")
    assert await _take(database, "a")
    await sql(database, "UPDATE leases SET until_us = 1")
    assert await _take(database, "b")
    assert not await _take(database, "a")


async def test_of_many_that_take_a_lease_at_once_one_has_it(database: Database) -> None:
    taken = await asyncio.gather(*(_take(database, f"owner{number}") for number in range(8)))
    assert sum(taken) == 1


async def test_the_bytes_that_are_still_to_come_are_reserved(database: Database) -> None:
    """Of what is uploaded always; of what has not begun only while it is fresh."""
    await insert(
        database,
        ingest(file(FileState.UPLOADING, size_bytes=1000, committed_size=300)),
        ingest(file(FileState.VERIFYING, size_bytes=50, committed_size=20)),
        ingest(file(FileState.PENDING, size_bytes=7, progress_at=later(10))),
        ingest(file(FileState.PENDING, size_bytes=10_000, progress_at=later(9))),
        *(ingest(file(state, size_bytes=10**9)) for state in (FileState.STORED, FileState.FAILED)),
    )
    assert await database.read(lambda tx: tx.files.reserved_bytes(later(10), later(10))) == 700 + 30 + 7


async def test_nothing_is_reserved_in_an_empty_store(database: Database) -> None:
    assert await database.read(lambda tx: tx.files.reserved_bytes(later(0), later(0))) == 0


async def test_uploads_that_stand_still_are_found_the_oldest_first(database: Database) -> None:
    still = [ingest(file(FileState.UPLOADING, progress_at=later(2))), ingest(file(progress_at=later(1)))]
    others = [
        ingest(file(FileState.UPLOADING, progress_at=later(5))),
        *(
            ingest(file(state, progress_at=later(0)))
            for state in FileState
            if state not in {FileState.PENDING, FileState.UPLOADING}
        ),
    ]
    await insert(database, *still, *others)
    found = await database.read(lambda tx: tx.files.without_progress_since(later(5), 10))
    assert [one.id for one in found] == [still[1].files[0].id, still[0].files[0].id]
    assert len(await database.read(lambda tx: tx.files.without_progress_since(later(5), 1))) == 1


@pytest.mark.parametrize("epoch", [3, 2])
async def test_a_checkpoint_of_the_present_writer_is_progress(database: Database, epoch: int) -> None:
    one = ingest(file(FileState.UPLOADING, writer_epoch=3, progress_at=later(0)))
    await insert(database, one)
    await database.transact(lambda tx: tx.files.checkpoint(one.files[0].id, epoch, 5, later(9)))
    found = await database.read(lambda tx: tx.files.without_progress_since(later(9), 10))
    assert bool(found) == (epoch == 2)
