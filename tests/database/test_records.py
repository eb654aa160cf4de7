"""What is written is what is read, on both databases: moments, JSON, absent values, large numbers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from ingest_service.database import Database, Transaction
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Failure, Ingest, NewEvent
from ingest_service.vocabulary.states import DeploymentState, FileRole, FileState, IngestState
from tests.database.records import NOON, deployment, digest, file, get, ingest, insert, later, sql

_FAILURE = Failure(Reason.TARGET_REFUSED, "it said «no»\n\x1b", {"target": "default", "ü": ""})
_FULL = ingest(
    file(
        FileState.FAILED,
        file_name="ä" * 100,
        role=FileRole.PROJECTOR,
        size_bytes=2**62,
        committed_size=2**61,
        declared_sha256=digest(1),
        sha256=digest(2),
        deduplicated=True,
        writer_epoch=2**40,
        failure=_FAILURE,
    ),
    file(file_name="b"),
    deployment(
        "b",
        DeploymentState.CREATING,
        attempts=3,
        fencing=2**40,
        next_attempt_at=later(1.000001),
        retry_until=later(2),
        failure=_FAILURE,
        status="pulling",
        status_events=7,
        progress_bytes=2**50,
        progress_total_bytes=2**51,
        target_version="0.1",
        layer_digest=digest(3),
        manifest_digest="x",
        create_baseline={"modified_at": "then"},
        cancel_requested=True,
    ),
    deployment("a"),
    state=IngestState.FAILED,
    model="Ns/Name:Tag",
    options={"a": [1, 2.5, None, {"b": "ü"}]},
    request_id="r",
    request_fingerprint="f" * 64,
    failure=_FAILURE,
)


async def test_everything_comes_back_as_it_was(database: Database) -> None:
    await insert(database, _FULL)
    assert await get(database, _FULL) == _FULL
    assert await database.transact(lambda tx: tx.ingests.by_request_id("r")) == _FULL


_MOMENTS = [
    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2038, 1, 19, 3, 14, 8, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2026, 6, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
]


async def test_a_moment_is_kept_to_the_microsecond(database: Database) -> None:
    for moment in _MOMENTS:
        one = ingest(created_at=moment)
        await insert(database, one)
        found = (await get(database, one)).created_at
        assert found == moment
        assert found.tzinfo is UTC


async def _save(database: Database, one: Ingest, **values: Any) -> Ingest:
    async def work(tx: Transaction) -> Ingest:
        before = await tx.ingests.lock(one.id)
        assert before is not None
        after = replace(
            before, failure=values["failure"], deployments=(replace(before.deployments[0], **values),)
        )
        return await tx.ingests.save(before, after, [NewEvent("notice", {"n": None})], later(5))

    return await database.transact(work)


async def test_an_absent_value_is_null_and_not_the_word_null(database: Database) -> None:
    one = ingest(file(), deployment(create_baseline={"x": "y"}, failure=_FAILURE), failure=_FAILURE)
    await insert(database, one)
    nulls = (
        "SELECT count(*) FROM deployments d JOIN ingests i ON i.id = d.ingest_id"
        " WHERE d.failure IS NULL AND d.create_baseline IS NULL AND i.failure IS NULL"
    )
    assert await sql(database, nulls) == [(0,)]
    saved = await _save(database, one, failure=None, create_baseline=None)
    assert await sql(database, nulls) == [(1,)]
    assert await get(database, one) == saved
    # {} says "the target had no such model", None says "create was never sent".
    await _save(database, one, failure=None, create_baseline={})
    assert (await get(database, one)).deployments[0].create_baseline == {}


async def test_saving_answers_what_is_then_read(database: Database) -> None:
    one = ingest(file(), deployment())
    await insert(database, one)
    saved = await _save(database, one, failure=_FAILURE, next_attempt_at=later(9))
    assert saved == await get(database, one)
    assert (saved.last_sequence, saved.updated_at, saved.created_at) == (1, later(5), NOON)


async def test_events_are_numbered_in_order_and_read_in_pages(database: Database) -> None:
    one, other = ingest(), ingest()
    await insert(database, one, other, events=[NewEvent("notice", {"n": n}) for n in range(3)])
    await _save_events(database, one, 4)
    found = await database.read(lambda tx: tx.events.after(one.id, 0, 100))
    assert [(event.sequence, event.body["n"]) for event in found] == [(n + 1, n) for n in range(7)]
    assert {event.ingest_id for event in found} == {one.id}
    page = await database.read(lambda tx: tx.events.after(one.id, 2, 3))
    assert [event.sequence for event in page] == [3, 4, 5]
    assert await database.read(lambda tx: tx.events.after(one.id, 7, 3)) == []


async def _save_events(database: Database, one: Ingest, count: int) -> None:
    async def work(tx: Transaction) -> None:
        before = await tx.ingests.lock(one.id)
        assert before is not None
        news = [NewEvent("notice", {"n": 3 + n}) for n in range(count)]
        await tx.ingests.save(before, before, news, later(1))

    await database.transact(work)
