"""The queue of deployments: who gets which, when, and for how long (design.md section 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ingest_service.database import Database, Lease, Transaction
from ingest_service.vocabulary.records import Deployment, Ingest, NewEvent
from ingest_service.vocabulary.states import DEPLOYMENT_MOVING, DeploymentState, FileState, IngestState
from tests.database.records import (
    deployment,
    file,
    forwarded,
    get,
    ingest,
    insert,
    later,
    opened,
    sql,
)

_PAST, _FUTURE = later(0), later(10 * 365 * 86400)
LONG = 600.0


async def claim(
    database: Database,
    targets: Sequence[str] = ("default",),
    *,
    busy: Sequence[str] = (),
    owner: str = "me",
    seconds: float = LONG,
) -> Lease | None:
    return await database.transact(lambda tx: tx.deployments.claim(owner, targets, busy, seconds))


async def renew(database: Database, lease: Lease, progress: tuple[int, int] | None = None) -> bool | None:
    return await database.transact(lambda tx: tx.deployments.renew(lease, LONG, progress))


async def change(database: Database, one: Ingest, **values: Any) -> None:
    """Changes the only deployment of an ingest."""

    async def work(tx: Transaction) -> None:
        before = await tx.ingests.lock(one.id)
        assert before is not None
        after = replace(before, deployments=(replace(before.deployments[0], **values),))
        await tx.ingests.save(before, after, [NewEvent("notice", {"message": "x"})], later(1))

    await database.transact(work)


async def only(database: Database, one: Ingest) -> Deployment:
    return (await get(database, one)).deployments[0]


async def test_the_oldest_comes_first_by_acceptance_not_by_any_clock(database: Database) -> None:
    many = [replace(forwarded(), created_at=later(-index)) for index in range(4)]
    await insert(database, *many)
    leases = [await claim(database) for _ in many]
    assert [lease and lease.ingest_id for lease in leases] == [one.id for one in many]
    assert await claim(database) is None


async def test_a_claim_counts_the_attempt_and_the_fencing_number(database: Database) -> None:
    one = forwarded(next_attempt_at=_PAST)
    await insert(database, one)
    lease = await claim(database)
    assert lease == Lease(one.deployments[0].id, one.id, "default", 1)
    found = await only(database, one)
    assert (found.fencing, found.attempts, found.next_attempt_at) == (1, 1, None)
    assert found.state is DeploymentState.PENDING
    await change(database, one, next_attempt_at=_PAST)
    again = await claim(database)
    assert again is not None
    assert again.fencing == 2
    assert (await only(database, one)).attempts == 2


async def test_only_what_is_due_on_a_free_target_of_ours(database: Database) -> None:
    await insert(
        database,
        forwarded("elsewhere"),
        forwarded("busy"),
        forwarded("mine", next_attempt_at=_FUTURE),
        forwarded("mine", DeploymentState.READY),
        wanted := forwarded("mine", next_attempt_at=_PAST),
    )
    found = await claim(database, ["busy", "mine"], busy=["busy"])
    assert found is not None
    assert found.ingest_id == wanted.id
    assert await claim(database, ["busy", "mine"], busy=["busy"]) is None
    assert await claim(database, []) is None


async def test_no_time_is_believed_beyond_its_own_maximum(database: Database) -> None:
    """A process whose clock was a day ahead is gone; or all clocks were set back."""
    day_us = 86_400_000_000
    await insert(database, one := forwarded())
    assert await claim(database) is not None
    assert await claim(database) is None
    await sql(database, f"UPDATE deployments SET lease_until_us = lease_until_us + {day_us}")
    assert await claim(database) is not None

    await change(database, one, next_attempt_at=later(86400))

    async def claim_at_noon() -> Lease | None:
        return await database.transact(
            lambda tx: tx.deployments.claim(
                "me", ["default"], [], LONG, due_by=later(0), max_wait_seconds=120.0
            )
        )

    assert await claim_at_noon() is not None
    await change(database, one, next_attempt_at=later(119))
    assert await claim_at_noon() is None

    await database.transact(lambda tx: tx.targets.serve(["default"]))
    for number in range(2):
        owner = f"turn{number}"
        assert await database.transact(lambda tx, owner=owner: tx.targets.take_turn("default", owner, 15))  # type: ignore[misc]
        assert await database.transact(lambda tx, owner=owner: tx.store.take_lease("sweep", owner, 15))  # type: ignore[misc]
        assert not await database.transact(lambda tx: tx.store.take_lease("sweep", "other", 15))
        await sql(database, f"UPDATE targets SET lease_until_us = lease_until_us + {day_us}")
        await sql(database, f"UPDATE leases SET until_us = until_us + {day_us}")


async def test_only_what_can_move(database: Database) -> None:
    for state in DeploymentState:
        await insert(database, forwarded(state=state))
        assert (await claim(database) is not None) == (state in DEPLOYMENT_MOVING), state


async def test_only_of_ingests_that_are_stored_and_not_done(database: Database) -> None:
    for state in IngestState:
        files = FileState.PENDING if state is IngestState.UPLOADING else FileState.STORED
        await insert(database, ingest(file(files), deployment(), state=state))
        expected = state in {IngestState.FORWARDING, IngestState.CANCELLING}
        assert (await claim(database) is not None) == expected, state


async def test_a_lease_runs_out_by_the_databases_clock(database: Database) -> None:
    one = forwarded()
    await insert(database, one)
    clock = {
        "sqlite": "SELECT CAST(strftime('%s', 'now') AS INTEGER)",
        "postgresql": "SELECT CAST(floor(extract(epoch FROM clock_timestamp())) AS BIGINT)",
    }[database.engine.dialect.name]
    before = (await sql(database, clock))[0][0]
    first = await claim(database, seconds=500.0)
    after = (await sql(database, clock))[0][0]
    until_us = (await sql(database, "SELECT lease_until_us FROM deployments"))[0][0]
    assert before + 500 <= until_us / 1_000_000 <= after + 1 + 500
    assert await claim(database, owner="other") is None
    # As if it had been claimed that long ago.
    await sql(database, "UPDATE deployments SET lease_until_us = lease_until_us - 501000000")
    second = await claim(database, owner="other")
    assert first is not None
    assert second is not None
    assert (first.fencing, second.fencing) == (1, 2)
    assert second.deployment_id == first.deployment_id


async def test_a_short_lease_runs_out_by_itself(database: Database) -> None:
    await insert(database, forwarded())
    assert await claim(database, seconds=0.3) is not None
    async with asyncio.timeout(20):
        while (lease := await claim(database, owner="other")) is None:
            await asyncio.sleep(0.05)
    assert lease.fencing == 2


async def test_renewing_extends_and_writes_progress_until_somebody_else_claimed(database: Database) -> None:
    one = forwarded()
    await insert(database, one)
    mine = await claim(database, seconds=0.0)
    assert mine is not None
    assert await renew(database, mine, (5, 10)) is False
    found = await only(database, one)
    assert (found.progress_bytes, found.progress_total_bytes) == (5, 10)
    assert await claim(database, owner="other") is None
    await sql(database, "UPDATE deployments SET lease_until_us = 0")
    assert await claim(database, owner="other") is not None
    assert await renew(database, mine, (9, 10)) is None
    assert (await only(database, one)).progress_bytes == 5


async def test_renewing_tells_of_a_cancel_and_of_the_end(database: Database) -> None:
    one = forwarded()
    await insert(database, one)
    mine = await claim(database)
    assert mine is not None
    await change(database, one, cancel_requested=True)
    assert await renew(database, mine) is True
    await change(database, one, state=DeploymentState.CANCELLED)
    assert await renew(database, mine) is None


async def test_what_waits_or_ended_gives_up_its_lease(database: Database) -> None:
    one = forwarded()
    await insert(database, one)
    leases = "SELECT lease_owner, lease_until_us FROM deployments"
    for values in ({"next_attempt_at": _PAST}, {"state": DeploymentState.FAILED}):
        assert await claim(database) is not None
        await change(database, one, state=DeploymentState.PUSHING)
        assert (await sql(database, leases))[0][0] == "me"
        await change(database, one, **values)
        assert await sql(database, leases) == [(None, None)]


async def test_a_worker_that_stops_gives_back_its_own_leases_only(database: Database) -> None:
    mine, theirs = forwarded("a"), forwarded("b")
    await insert(database, mine, theirs)
    await claim(database, ["a"])
    await claim(database, ["b"], owner="them")
    await database.transact(lambda tx: tx.deployments.release_all("me"))
    again = await claim(database, ["a", "b"])
    assert again is not None
    assert again.ingest_id == mine.id
    assert await claim(database, ["a", "b"]) is None


async def test_claimants_at_once_never_get_the_same(database: Database, database_url: str) -> None:
    many = [forwarded() for _ in range(24)]
    await insert(database, *many)
    async with opened(database_url) as other:
        claims = [claim(one, owner=f"{turn}") for turn in range(20) for one in (database, other)]
        leases = [lease for lease in await asyncio.gather(*claims) if lease is not None]
        # One that passed by a row which another was just taking may have found no other: it asks again.
        while (lease := await claim(database)) is not None:
            leases.append(lease)
    assert sorted(lease.ingest_id for lease in leases) == sorted(one.id for one in many)
    assert {lease.fencing for lease in leases} == {1}
