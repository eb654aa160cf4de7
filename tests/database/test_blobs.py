"""Blobs: LIVE or absent, and the same bytes published by many at once."""

from __future__ import annotations

import asyncio

import pytest

from ingest_service.database import Database
from ingest_service.formats import RULES_VERSION
from ingest_service.vocabulary.records import Blob, Inspection
from ingest_service.vocabulary.states import BlobState
from tests.database.records import NOON, digest, later, opened, sql
from tests.support.formats import ACCEPTED


async def _make(database: Database, seed: int = 1, size: int = 100) -> None:
    await database.transact(lambda tx: tx.blobs.make_live(digest(seed), size, ACCEPTED, NOON))


async def _mark(database: Database, state: BlobState) -> None:
    await sql(database, "UPDATE blobs SET state = :state", state=str(state))


async def test_published_bytes_are_live(database: Database) -> None:
    assert await database.transact(lambda tx: tx.blobs.live(digest(1))) is None
    await _make(database)
    found = await database.transact(lambda tx: tx.blobs.live(digest(1)))
    assert found == Blob(digest(1), 100, BlobState.LIVE, "gguf", NOON, RULES_VERSION, {}, NOON)


async def test_a_live_blob_is_as_old_as_it_was_and_known_as_it_was_last_read(database: Database) -> None:
    await _make(database)
    newer = Inspection("gguf", RULES_VERSION + 1, {"architecture": "llama"})
    await database.transact(lambda tx: tx.blobs.make_live(digest(1), 100, newer, later(9)))
    assert await database.transact(lambda tx: tx.blobs.live(digest(1))) == Blob(
        digest(1), 100, BlobState.LIVE, "gguf", NOON, RULES_VERSION + 1, newer.facts, later(9)
    )


async def test_a_blob_that_newer_rules_have_accepted(database: Database) -> None:
    await _make(database)
    newer = Inspection("gguf", RULES_VERSION + 1, {"architecture": "llama"})
    await database.transact(lambda tx: tx.blobs.accept(digest(1), newer))
    found = await database.transact(lambda tx: tx.blobs.live(digest(1)))
    assert found == Blob(digest(1), 100, BlobState.LIVE, "gguf", NOON, RULES_VERSION + 1, newer.facts, NOON)


@pytest.mark.parametrize("state", [BlobState.DELETING, BlobState.CORRUPT])
async def test_one_on_its_way_out_counts_as_absent_until_it_is_published_again(
    database: Database, state: BlobState
) -> None:
    await _make(database)
    await _mark(database, state)
    assert await database.transact(lambda tx: tx.blobs.live(digest(1))) is None
    assert await database.read(lambda tx: tx.blobs.totals()) == (0, 0)
    await _make(database, size=101)
    found = await database.transact(lambda tx: tx.blobs.live(digest(1)))
    assert found is not None
    assert (found.state, found.size_bytes) == (BlobState.LIVE, 101)


async def test_the_same_bytes_published_by_many_at_once_are_one_blob(
    database: Database, database_url: str
) -> None:
    async with opened(database_url) as other:
        await asyncio.gather(*(_make(one) for _ in range(10) for one in (database, other)))
    assert await database.read(lambda tx: tx.blobs.totals()) == (1, 100)


async def test_totals_count_every_live_blob_once(database: Database) -> None:
    assert await database.read(lambda tx: tx.blobs.totals()) == (0, 0)
    for seed in range(3):
        await _make(database, seed, size=2**40)
    assert await database.read(lambda tx: tx.blobs.totals()) == (3, 3 * 2**40)


async def test_a_store_has_one_id(database: Database) -> None:
    assert await database.read(lambda tx: tx.store.store_id()) is None
    await database.transact(lambda tx: tx.store.set_store_id("first"))
    assert await database.read(lambda tx: tx.store.store_id()) == "first"
