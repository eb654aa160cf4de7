"""A transaction is whole, sees one moment, belongs to one task, and fails in the house's own words."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from ingest_service.database import Conflict, Database, Transaction
from ingest_service.vocabulary.errors import BackendDown, DatabaseFull, IngestError
from ingest_service.vocabulary.records import Ingest, NewEvent
from ingest_service.vocabulary.states import FileState, IngestState
from tests.database.records import NOON, file, get, ingest, insert, later, new_id, opened, sql
from tests.support.postgres import PostgresCluster

_EVENT = NewEvent("notice", {"message": "x"})


class Deliberate(Exception):
    """Ours."""


async def test_what_raises_leaves_nothing(database: Database) -> None:
    one = ingest()

    async def work(tx: Transaction) -> None:
        await tx.ingests.insert(one, [_EVENT])
        assert await tx.ingests.get(one.id) is not None
        raise Deliberate

    with pytest.raises(Deliberate):
        await database.transact(work)
    assert await database.read(lambda tx: tx.ingests.get(one.id)) is None
    for table in ("ingests", "files", "deployments", "events"):
        assert await sql(database, f"SELECT count(*) FROM {table}") == [(0,)]


async def test_a_transaction_is_refused_to_any_task_but_its_own(database: Database) -> None:
    async def work(tx: Transaction) -> None:
        with pytest.raises(RuntimeError, match="a task that did not begin it"):
            await asyncio.create_task(tx.models.count())
        with pytest.raises(RuntimeError, match="a task that did not begin it"):
            await asyncio.gather(tx.models.count())

    await database.transact(work)
    await database.read(work)


async def test_a_transaction_is_refused_to_its_caller_after_it_ended(database: Database) -> None:
    async def work(tx: Transaction) -> Transaction:
        return tx

    tx = await database.transact(work)
    with pytest.raises(RuntimeError, match="a task that did not begin it"):
        await tx.models.count()


async def test_a_taken_request_id_is_a_conflict_and_leaves_the_first(database: Database) -> None:
    first, second = ingest(request_id="r"), ingest(request_id="r")
    await insert(database, first)
    with pytest.raises(Conflict):
        await insert(database, second)
    found = await database.transact(lambda tx: tx.ingests.by_request_id("r"))
    assert found is not None
    assert found.id == first.id
    assert await database.read(lambda tx: tx.ingests.get(second.id)) is None


async def test_only_a_taken_value_is_a_conflict(database: Database) -> None:
    """A missing parent is a bug of ours: to call it a conflict would send the caller round again."""
    with pytest.raises(IntegrityError):
        await database.transact(lambda tx: tx.events.append("no such ingest", 0, [_EVENT], NOON))


async def _to_stored(database: Database, one: Ingest) -> None:
    async def work(tx: Transaction) -> None:
        before = await tx.ingests.lock(one.id)
        assert before is not None
        done = replace(before.files[0], state=FileState.STORED, committed_size=100)
        after = replace(before, state=IngestState.STORED, files=(done,))
        await tx.ingests.save(before, after, [_EVENT], later(1))

    await database.transact(work)


async def test_a_reading_transaction_sees_one_moment(database: Database) -> None:
    """Rows of an ingest are read one after the other: an ingest must not come with files of a later time."""
    one = ingest(file(FileState.UPLOADING))
    await insert(database, one)

    async def work(tx: Transaction) -> tuple[Ingest | None, Ingest | None, int]:
        before = await tx.ingests.get(one.id)
        await changing
        return before, await tx.ingests.get(one.id), len(await tx.events.after(one.id, 0, 10))

    changing = asyncio.create_task(_to_stored(database, one))
    before, after, events = await database.read(work)
    assert before == after
    assert events == 0
    assert (await get(database, one)).state is IngestState.STORED


async def test_listeners_hear_of_commits_that_made_events_and_of_no_others(database: Database) -> None:
    heard: list[str] = []
    database.on_event(heard.append)
    one, two = ingest(), ingest()

    async def failing(tx: Transaction) -> None:
        await tx.ingests.insert(two, [_EVENT])
        raise Deliberate

    await insert(database, one, events=[_EVENT])
    await insert(database, ingest())
    with pytest.raises(Deliberate):
        await database.transact(failing)
    assert heard == [one.id]


_SQLSTATES: dict[str, type[Exception]] = {
    "53100": DatabaseFull,
    "53200": BackendDown,
    "57P03": BackendDown,
    "08006": BackendDown,
    "25006": BackendDown,
    "55P03": BackendDown,
    "40P01": BackendDown,
    "40001": BackendDown,
    "22012": DBAPIError,
}


async def test_what_postgresql_answers_is_told_in_the_houses_words(postgres: PostgresCluster) -> None:
    name = f"words_{new_id()}"
    async with opened(postgres.create_database(name)) as database:
        for sqlstate, expected in _SQLSTATES.items():
            await _check_words(database, sqlstate, expected)
    postgres.drop_database(name)


async def _check_words(database: Database, sqlstate: str, expected: type[Exception]) -> None:
    runs = 0

    async def work(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        await tx.store._statements.run(
            text(f"DO $$ BEGIN RAISE EXCEPTION 'secret words' USING ERRCODE = '{sqlstate}'; END $$")
        )

    with pytest.raises(expected) as caught:
        await database.transact(work)
    if isinstance(caught.value, IngestError):
        assert "secret words" not in caught.value.message
    assert runs == (4 if sqlstate in {"40P01", "40001"} else 1)
    assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
