"""The catalog: under each name the newest ingest whose bytes are all stored, and what was there before it."""

from __future__ import annotations

from datetime import datetime

from ingest_service.database import Database, Transaction
from ingest_service.lifecycle import Change
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Failure, Ingest, Model
from ingest_service.vocabulary.states import DeploymentState, FileState, IngestState
from tests.database.records import NOON, deployment, digest, file, get, ingest, insert, later
from tests.support.formats import ACCEPTED


def _stored(seed: int, model: str = "a:latest", *, at: datetime = NOON) -> Ingest:
    return ingest(
        file(FileState.STORED, sha256=digest(seed)), model=model, state=IngestState.STORED, created_at=at
    )


async def _model(database: Database, name: str = "a:latest") -> Model | None:
    return await database.read(lambda tx: tx.models.get(name))


async def _names(database: Database, prefix: str = "") -> list[str]:
    models, more = await database.read(lambda tx: tx.models.page(prefix=prefix, after=None, limit=100))
    assert more is None
    return [model.canonical_model for model in models]


async def test_the_newest_by_acceptance_wins_and_the_others_are_its_past(database: Database) -> None:
    # The clock of the third runs behind: acceptance decides.
    await insert(database, _stored(1), _stored(2), newest := _stored(3, at=later(-99)))
    found = await _model(database)
    assert found is not None
    assert found.newest.id == newest.id
    assert found.stored_at == later(-99)
    assert found.earlier_digests == (digest(2), digest(1))


async def test_one_that_was_accepted_earlier_and_stored_later_does_not_win(database: Database) -> None:
    early, late = ingest(file(FileState.PUBLISHING, sha256=digest(1)), model="a:latest"), _stored(2)
    await insert(database, early, late)
    await _change(database, early, lambda change: change.file(early.files[0].id, FileState.STORED))
    found = await _model(database)
    assert found is not None
    assert found.newest.id == late.id
    assert found.earlier_digests == (digest(1),)


async def test_at_most_twenty_earlier_digests_each_once_without_the_present(database: Database) -> None:
    seeds = [*range(25), 3, 24, 7]
    await insert(database, *(_stored(seed) for seed in seeds))
    found = await _model(database)
    assert found is not None
    expected = [24, 3, *reversed([n for n in range(24) if n not in {3, 7}])][:20]
    assert found.earlier_digests == tuple(digest(seed) for seed in expected)


async def _change(database: Database, one: Ingest, apply) -> None:
    async def work(tx: Transaction) -> None:
        before = await tx.ingests.lock(one.id)
        assert before is not None
        change = Change(before, later(60))
        apply(change)
        await tx.ingests.save(before, change.after, change.events, change.now)

    await database.transact(work)


async def test_what_is_not_all_stored_is_not_there(database: Database) -> None:
    for state in set(FileState) - {FileState.STORED}:
        await insert(database, ingest(file(state), model=f"{state}:latest".lower()))
    half = ingest(file(FileState.STORED), file(file_name="b"), model="half:latest")
    cancelled = ingest(file(FileState.UPLOADING), model="cancelled:latest")
    failed = ingest(file(FileState.UPLOADING), model="failed:latest")
    await insert(database, half, cancelled, failed)
    await _change(database, cancelled, lambda change: change.cancel())
    failure = Failure(Reason.DIGEST_MISMATCH, "no")
    await _change(database, failed, lambda change: change.fail_file(failed.files[0].id, failure))
    assert (await get(database, cancelled)).state is IngestState.CANCELLED
    assert await _names(database) == []
    assert await _model(database, "failed:latest") is None
    assert await database.read(lambda tx: tx.models.count()) == 0


async def test_an_upload_that_fails_leaves_the_model_before_it(database: Database) -> None:
    second = ingest(file(FileState.UPLOADING), model="a:latest")
    await insert(database, first := _stored(1), second)
    failure = Failure(Reason.UPLOAD_INTERRUPTED, "no")
    await _change(database, second, lambda change: change.fail_file(second.files[0].id, failure))
    found = await _model(database)
    assert found is not None
    assert (found.newest.id, found.earlier_digests) == (first.id, ())


async def test_it_is_there_from_the_moment_its_bytes_are_whatever_its_targets_do(database: Database) -> None:
    one = ingest(file(FileState.PUBLISHING), deployment("a"), deployment("b"), model="a:latest")
    await insert(database, one)
    assert await _names(database) == []
    await _change(database, one, lambda change: change.file(one.files[0].id, FileState.STORED))
    assert await _names(database) == ["a:latest"]
    failure = Failure(Reason.TARGET_REFUSED, "no")
    for part in one.deployments:
        await _change(
            database,
            one,
            lambda change, part=part: change.deployment(part.id, DeploymentState.FAILED, failure=failure),
        )
    found = await _model(database)
    assert found is not None
    assert found.newest.state is IngestState.FAILED
    assert found.stored_at == later(60)


async def test_one_cancelled_while_its_file_was_published_does_not_turn_up(database: Database) -> None:
    one = ingest(file(FileState.PUBLISHING), deployment(), model="a:latest")
    await insert(database, one)
    await _change(database, one, lambda change: change.cancel())
    assert (await get(database, one)).state is IngestState.CANCELLING
    await _change(database, one, lambda change: change.file(one.files[0].id, FileState.STORED))
    assert (await get(database, one)).state is IngestState.CANCELLED
    assert await _names(database) == []


async def test_formats_come_from_the_blobs(database: Database) -> None:
    await insert(database, _stored(1))
    await database.transact(lambda tx: tx.blobs.make_live(digest(1), 100, ACCEPTED, later(0)))
    found = await _model(database)
    assert found is not None
    assert {key: blob.format for key, blob in found.blobs.items()} == {digest(1): "gguf"}
