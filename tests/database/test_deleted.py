"""What was deleted: no job, no reference, no model; and the newest word about each target."""

from __future__ import annotations

from dataclasses import replace

from ingest_service.database import Database, Transaction
from ingest_service.vocabulary.records import Deployment, Ingest
from ingest_service.vocabulary.states import DeploymentState, FileState, IngestState
from tests.database.records import NOON, deployment, digest, file, forwarded, get, ingest, insert, later, sql

_D = DeploymentState


async def _delete(database: Database, one: Ingest) -> None:
    await database.transact(lambda tx: _deleted(tx, one))


async def _deleted(tx: Transaction, one: Ingest) -> None:
    before = await tx.ingests.lock(one.id)
    assert before is not None
    await tx.ingests.save(before, replace(before, deleted_at=later(9)), (), later(9))


def _stored(seed: int, *parts: Deployment, model: str = "a:latest") -> Ingest:
    state = IngestState.READY if parts else IngestState.STORED
    return ingest(file(FileState.STORED, sha256=digest(seed)), *parts, model=model, state=state)


async def _words(database: Database, name: str = "a:latest") -> list[tuple[str, DeploymentState, int]]:
    model = await database.read(lambda tx: tx.models.get(name))
    assert model is not None
    return [(one.target, one.state, one.attempts) for one in model.deployments]


async def test_it_is_kept_with_the_ingest(database: Database) -> None:
    await insert(database, one := _stored(1))
    assert (await get(database, one)).deleted_at is None
    await _delete(database, one)
    assert (await get(database, one)).deleted_at == later(9)


async def test_a_deployment_of_a_deleted_ingest_is_nobodys_job(database: Database) -> None:
    await insert(database, one := forwarded("a"))
    await _delete(database, one)
    assert await database.transact(lambda tx: tx.deployments.claim("w", ["a"], [], 60)) is None
    await sql(database, "UPDATE ingests SET deleted_at = NULL")
    assert await database.transact(lambda tx: tx.deployments.claim("w", ["a"], [], 60)) is not None


async def test_it_refers_to_no_bytes(database: Database) -> None:
    await insert(database, one := _stored(1), other := _stored(1, model="b:latest"))
    await sql(
        database,
        "INSERT INTO blobs (sha256, size_bytes, state, format, created_at, rules_version)"
        " VALUES (:sha256, 100, 'LIVE', 'gguf', 0, 1)",
        sha256=digest(1),
    )
    for gone, left in ((one, []), (other, [digest(1)])):
        await _delete(database, gone)
        found = await database.read(lambda tx: tx.blobs.unreferenced(NOON))
        assert [blob.sha256 for blob in found] == left


async def test_lists_count_and_pasts_are_without_it(database: Database) -> None:
    first, second = _stored(1), _stored(2)
    await insert(database, first, second, gone := _stored(3, model="b:latest"), _stored(4, model="c:latest"))
    await _delete(database, gone)
    models, _ = await database.read(lambda tx: tx.models.page(prefix="", after=None, limit=9))
    assert [model.canonical_model for model in models] == ["a:latest", "c:latest"]
    assert await database.read(lambda tx: tx.models.count()) == 2
    assert await database.read(lambda tx: tx.models.get("b:latest")) is None
    await _delete(database, first)
    model = await database.read(lambda tx: tx.models.get("a:latest"))
    assert model is not None
    assert model.earlier_digests == ()
    locked = await database.transact(lambda tx: tx.ingests.lock_in_catalog("a:latest"))
    assert [one.id for one in locked] == [second.id]


async def test_the_newest_word_about_each_target(database: Database) -> None:
    await insert(
        database,
        gone := _stored(1, deployment("z", _D.READY, attempts=1)),
        _stored(2, deployment("a", _D.READY, attempts=2), deployment("b", _D.READY, attempts=3)),
        _stored(3, deployment("b", _D.FAILED, attempts=4)),
        _stored(5, deployment("a", _D.CANCELLED, attempts=9), model="other:latest"),
        # Not stored yet: it says nothing about any target.
        ingest(file(FileState.UPLOADING), deployment("a"), model="a:latest"),
        newest := _stored(4),
    )
    await _delete(database, gone)
    assert sorted(await _words(database)) == [("a", _D.READY, 2), ("b", _D.FAILED, 4)]
    assert await _words(database, "other:latest") == [("a", _D.CANCELLED, 9)]
    model = await database.read(lambda tx: tx.models.get("a:latest"))
    assert model is not None
    assert model.newest.id == newest.id


async def test_what_was_claimed_once_may_be_on_its_target_however_often_it_was_retried(
    database: Database,
) -> None:
    # A retry sets the attempts back; then it was cancelled before anybody claimed it again.
    retried = deployment("a", _D.CANCELLED, attempts=0, fencing=3)
    await insert(database, _stored(1, retried, deployment("b", _D.CANCELLED)))
    found = await database.read(lambda tx: tx.models.may_be_on("a:latest"))
    assert list(found) == ["a"]


async def test_a_removal_is_of_the_attempts_before_it(database: Database) -> None:
    part = deployment("a", _D.FAILED, attempts=1, fencing=1)
    await insert(database, _stored(1, part))
    late = (await database.read(lambda tx: tx.models.may_be_on("a:latest")))["a"]
    await database.transact(lambda tx: tx.deployments.mark_removed(late, NOON))
    assert (await database.read(lambda tx: tx.models.may_be_on("a:latest")))["a"].removed_at == NOON
    await sql(database, "UPDATE deployments SET state = 'PENDING'")
    await sql(database, "UPDATE ingests SET state = 'FORWARDING'")
    assert await database.transact(lambda tx: tx.deployments.claim("w", ["a"], [], 60)) is not None
    for _ in range(2):
        assert (await database.read(lambda tx: tx.models.may_be_on("a:latest")))["a"].removed_at is None
        # An answer that was asked for before the claim says nothing about it.
        await database.transact(lambda tx: tx.deployments.mark_removed(late, NOON))


async def _is_busy(database: Database, name: str) -> bool:
    return await database.read(lambda tx: tx.models.moving(name)) is not None


async def test_what_moves_keeps_a_model_busy(database: Database) -> None:
    for state in DeploymentState:
        name = f"{state.lower()}:latest"
        await insert(database, one := _stored(1, deployment("a", state), model=name))
        assert await _is_busy(database, name) == (state in {_D.PENDING, _D.PUSHING, _D.CREATING}), state
        await _delete(database, one)
        assert not await _is_busy(database, name)
    await insert(database, ingest(file(), deployment("a"), model="half:latest"))
    assert not await _is_busy(database, "half:latest")
