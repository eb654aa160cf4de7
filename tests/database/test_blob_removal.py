"""A blob that anybody refers to is never marked; what is marked may be wanted again until its row is gone."""

from __future__ import annotations

import asyncio

import pytest

from ingest_service.database import Database, Transaction
from ingest_service.vocabulary.states import BlobState, FileState
from tests.database.records import NOON, digest, file, ingest, insert, later, opened, sql
from tests.support.formats import ACCEPTED

BLOB = digest(1)
REFERRING = {FileState.PUBLISHING, FileState.STORED}


async def _make(database: Database) -> None:
    await database.transact(lambda tx: tx.blobs.make_live(BLOB, 100, ACCEPTED, NOON))


async def _mark(database: Database) -> bool:
    return await database.transact(lambda tx: tx.blobs.mark_deleting(BLOB))


async def _state(database: Database) -> str | None:
    rows = await sql(database, "SELECT state FROM blobs")
    return str(rows[0][0]) if rows else None


@pytest.mark.parametrize("state", list(FileState))
async def test_a_reference_keeps_it(database: Database, state: FileState) -> None:
    await _make(database)
    await insert(database, ingest(file(state, sha256=BLOB)))
    refers = state in REFERRING
    found = await database.read(lambda tx: tx.blobs.unreferenced(later(1)))
    assert [blob.sha256 for blob in found] == ([] if refers else [BLOB])
    assert await _mark(database) is not refers
    assert await _state(database) == (BlobState.LIVE if refers else BlobState.DELETING)
    assert await database.read(lambda tx: tx.blobs.is_unwanted(BLOB)) is not refers
    assert (await database.transact(lambda tx: tx.blobs.live(BLOB)) is not None) is refers


async def test_a_young_one_is_not_looked_at_and_one_whose_removal_was_begun_is(database: Database) -> None:
    await _make(database)
    assert await database.read(lambda tx: tx.blobs.unreferenced(NOON)) == []
    assert await _mark(database)
    (found,) = await database.read(lambda tx: tx.blobs.unreferenced(NOON))
    assert (found.sha256, found.state) == (BLOB, BlobState.DELETING)


async def test_a_corrupt_one_is_evidence_and_stays(database: Database) -> None:
    await _make(database)
    await database.transact(lambda tx: tx.blobs.mark_corrupt(BLOB))
    assert await _mark(database) is False
    assert await _state(database) == BlobState.CORRUPT


async def test_one_that_is_published_again_meanwhile_stays(database: Database) -> None:
    await _make(database)
    assert await _mark(database)
    await _make(database)
    assert await database.read(lambda tx: tx.blobs.is_unwanted(BLOB)) is False
    await database.transact(lambda tx: tx.blobs.remove_deleting(BLOB))
    assert await _state(database) == BlobState.LIVE


async def test_a_file_in_publication_makes_it_wanted_although_it_is_marked(database: Database) -> None:
    await _make(database)
    assert await _mark(database)
    await insert(database, ingest(file(FileState.PUBLISHING, sha256=BLOB)))
    assert await database.read(lambda tx: tx.blobs.is_unwanted(BLOB)) is False


async def test_the_row_of_one_that_is_gone_goes(database: Database) -> None:
    await _make(database)
    assert await _mark(database)
    await database.transact(lambda tx: tx.blobs.remove_deleting(BLOB))
    assert await _state(database) is None


async def test_a_reference_that_is_taken_while_the_sweep_marks_is_seen(
    database: Database, database_url: str
) -> None:
    """The sweep waits for whoever looked the blob up, and then sees what that one wrote."""
    await _make(database)
    looked, go_on = asyncio.Event(), asyncio.Event()
    one = ingest(file(FileState.STORED, sha256=BLOB))

    async def refer(tx: Transaction) -> None:
        assert await tx.blobs.live(BLOB) is not None
        looked.set()
        await go_on.wait()
        await tx.ingests.insert(one, ())

    async with opened(database_url) as other:
        referring = asyncio.create_task(database.transact(refer))
        await looked.wait()
        marking = asyncio.create_task(_mark(other))
        await asyncio.wait({marking}, timeout=0.3)
        assert not marking.done()
        go_on.set()
        await referring
        assert await marking is False
    assert await _state(database) == BlobState.LIVE


async def test_a_reference_that_comes_after_the_mark_is_not_taken(
    database: Database, database_url: str
) -> None:
    await _make(database)
    marked, go_on = asyncio.Event(), asyncio.Event()

    async def mark(tx: Transaction) -> bool:
        done = await tx.blobs.mark_deleting(BLOB)
        marked.set()
        await go_on.wait()
        return done

    async with opened(database_url) as other:
        marking = asyncio.create_task(database.transact(mark))
        await marked.wait()
        looking = asyncio.create_task(other.transact(lambda tx: tx.blobs.live(BLOB)))
        await asyncio.wait({looking}, timeout=0.3)
        assert not looking.done()
        go_on.set()
        assert await marking is True
        assert await looking is None
