"""A claim, a renewal or a checkpoint beside a change of the same ingest: neither writes over the other."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from sqlalchemy import event

from ingest_service.database import Database, Lease, Transaction
from ingest_service.vocabulary.records import NewEvent
from ingest_service.vocabulary.states import DeploymentState, FileState
from tests.database.records import deployment, file, forwarded, get, ingest, insert, later, opened, sql
from tests.database.test_claims import claim, renew
from tests.support.postgres import PostgresCluster

_EVENT = NewEvent("notice", {"message": "x"})


async def _during(database: Database, one: str, rival: Coroutine[Any, Any, Any], **values: Any) -> Any:
    """Locks the ingest, lets the rival run, then moves its only deployment; answers what the rival got."""
    locked = asyncio.Event()

    async def after_lock() -> Any:
        await locked.wait()
        return await rival

    running = asyncio.create_task(after_lock())

    async def work(tx: Transaction) -> None:
        before = await tx.ingests.lock(one)
        assert before is not None
        locked.set()
        await asyncio.wait({running}, timeout=0.5)
        after = replace(before, deployments=(replace(before.deployments[0], **values),))
        await tx.ingests.save(before, after, [_EVENT], later(1))

    await database.transact(work)
    return await running


async def test_a_worker_whose_lease_ran_out_cannot_write_over_a_newer_claim(database: Database) -> None:
    """It checks its fencing number and then writes: no claim may come between the two."""
    one = forwarded()
    await insert(database, one)
    old = await claim(database, seconds=0.0)
    assert old is not None
    new = await _during(
        database, one.id, claim(database, owner="new"), state=DeploymentState.READY, target_version="1"
    )
    # The old one's word counted, so there was nothing left to claim.
    assert new is None
    found = (await get(database, one)).deployments[0]
    assert (found.state, found.fencing, found.target_version) == (DeploymentState.READY, 1, "1")


async def test_a_waiting_deployment_is_not_claimed_while_it_is_cancelled(database: Database) -> None:
    one = forwarded()
    await insert(database, one)
    assert await _during(database, one.id, claim(database), state=DeploymentState.CANCELLED) is None
    assert (await get(database, one)).deployments[0].attempts == 0


async def test_a_lease_is_not_renewed_after_the_end(database: Database) -> None:
    one = forwarded()
    await insert(database, one)
    lease = await claim(database)
    assert lease is not None
    answer = await _during(database, one.id, renew(database, lease, (1, 2)), state=DeploymentState.FAILED)
    assert answer is None
    assert (await get(database, one)).deployments[0].progress_bytes == 0


async def test_a_checkpoint_waits_for_the_end_of_its_file(database: Database) -> None:
    one = ingest(file(FileState.UPLOADING))
    await insert(database, one)
    locked = asyncio.Event()

    async def checkpoint() -> bool:
        await locked.wait()
        return await database.transact(lambda tx: tx.files.checkpoint(one.files[0].id, 1, 50, later(1)))

    running = asyncio.create_task(checkpoint())

    async def work(tx: Transaction) -> None:
        before = await tx.ingests.lock(one.id)
        assert before is not None
        locked.set()
        await asyncio.wait({running}, timeout=0.5)
        assert not running.done()
        failed = replace(before.files[0], state=FileState.FAILED)
        await tx.ingests.save(before, replace(before, files=(failed,)), [_EVENT], later(1))

    await database.transact(work)
    assert await running is False
    assert (await get(database, one)).files[0].committed_size == 0


async def test_a_change_writes_no_more_than_what_changed(database: Database) -> None:
    """A row written without need is a lease or a checkpoint undone when the lock is once forgotten."""
    one = ingest(file(FileState.UPLOADING), deployment("a"), deployment("b", next_attempt_at=later(5)))
    await insert(database, one)
    written: list[str] = []

    def ran(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith(("SELECT", "BEGIN")):
            written.append(" ".join(re.findall(r"^(INSERT INTO|UPDATE) (\w+)", statement)[0]))

    async def work(tx: Transaction) -> None:
        before = await tx.ingests.lock(one.id)
        assert before is not None
        await tx.ingests.save(before, before, [_EVENT], later(1))

    event.listen(database.engine.sync_engine, "before_cursor_execute", ran)
    await database.transact(work)
    event.remove(database.engine.sync_engine, "before_cursor_execute", ran)
    assert written == ["INSERT INTO events", "UPDATE ingests"]


async def test_a_save_with_an_old_look_at_a_waiting_deployment_keeps_its_lease(database: Database) -> None:
    one = forwarded(next_attempt_at=later(0))
    await insert(database, one)
    stale = await get(database, one)
    assert await claim(database) is not None
    await database.transact(lambda tx: tx.ingests.save(stale, stale, [_EVENT], later(1)))
    assert await sql(database, "SELECT lease_owner FROM deployments") == [("me",)]
    assert await claim(database, owner="other") is None


async def test_a_claimant_passes_by_what_somebody_else_is_changing(postgres: PostgresCluster) -> None:
    """Only PostgreSQL lets it: on SQLite it would wait for its turn to write."""
    async with opened(postgres.create_database("passing", "migrated")) as database:
        oldest, next_one = forwarded(), forwarded()
        await insert(database, oldest, next_one)

        async def work(tx: Transaction) -> Lease | None:
            await tx.ingests.lock(oldest.id)
            async with asyncio.timeout(10):
                return await asyncio.create_task(claim(database))

        found = await database.transact(work)
        assert found is not None
        assert found.ingest_id == next_one.id
    postgres.drop_database("passing")
