"""Leases and fencing: each deployment is driven by one worker at a time; who lost it writes nothing more."""

from __future__ import annotations

import asyncio

import pytest

from ingest_service.database import Lease
from ingest_service.forwarding.moves import LeaseLost
from ingest_service.vocabulary.records import NewEvent
from ingest_service.vocabulary.states import DeploymentState
from tests.forwarding.world import World
from tests.ollama_emulator import Fault, OllamaEmulator
from tests.support.files import gguf

pytestmark = pytest.mark.extended_when("postgresql")


async def test_a_deployment_is_claimed_by_one_of_many(both_worlds: World) -> None:
    world = both_worlds
    ids = [await world.stored(gguf(), f"m{number}") for number in range(5)]
    claims = await asyncio.gather(*(world.claim(f"worker {number}") for number in range(20)))
    leases = [lease for lease in claims if lease is not None]
    # On PostgreSQL claimants pass each other's rows by, so one that found none may simply ask again.
    while (more := await world.claim("late")) is not None:
        leases.append(more)
    assert sorted(lease.ingest_id for lease in leases) == sorted(ids)
    assert {lease.fencing for lease in leases} == {1}


async def test_two_workers_drive_each_deployment_once(both_worlds: World, emulator: OllamaEmulator) -> None:
    world = both_worlds
    ids = [await world.stored(gguf(4000 + number), f"m{number}") for number in range(6)]
    for number in range(2):
        world.worker(owner=f"worker {number}")
    for ingest_id in ids:
        ingest = await world.done(ingest_id)
        assert await world.states(ingest_id) == "PUSHING CREATING READY"
        assert ingest.deployments[0].attempts == 1
    assert sorted(call.json["model"] for call in emulator.calls.named("create")) == [
        f"m{number}:latest" for number in range(6)
    ]


async def test_who_lost_the_lease_writes_nothing_more(both_worlds: World) -> None:
    world = both_worlds
    ingest_id = await world.stored(gguf())
    first = await world.claim("first", lease_seconds=-1)
    second = await world.claim("second")
    assert first is not None
    assert second is not None
    assert second.fencing == first.fencing + 1
    before = (await world.ingest(ingest_id), await world.events(ingest_id))
    lost = world.moves(first)
    for attempt in (
        lost.read(),
        lost.move(DeploymentState.PUSHING),
        lost.move(DeploymentState.READY),
        lost.statuses(["hello"]),
        lost.notice("hello"),
    ):
        with pytest.raises(LeaseLost):
            await attempt
    assert await world.database.transact(lambda tx: tx.deployments.renew(first, 60, (1, 2))) is None
    assert (await world.ingest(ingest_id), await world.events(ingest_id)) == before
    await world.moves(second).move(DeploymentState.PUSHING)
    assert await world.states(ingest_id) == "PUSHING"


async def test_a_worker_that_lost_its_lease_stops_driving(
    both_worlds: World, emulator: OllamaEmulator
) -> None:
    world = both_worlds
    stall = emulator.faults.add(Fault("stall", "blob_post"))
    ingest_id = await world.stored(gguf())
    world.worker(lease_seconds=0.6)
    await stall.wait_stalled()
    taker = await _take(world, ingest_id)
    async with asyncio.timeout(20):
        while emulator.calls.named("blob_post")[0].outcome == "open":
            await asyncio.sleep(0.01)
    assert emulator.calls.named("blob_post")[0].outcome == "client_gone"
    await world.moves(taker).move(DeploymentState.READY)
    assert await world.states(ingest_id) == "PUSHING READY"


async def _take(world: World, ingest_id: str) -> Lease:
    """Claims a deployment over its worker's head."""
    deployment = await world.deployment(ingest_id)

    async def work(tx: object) -> None:
        from sqlalchemy import update

        from ingest_service.database.tables import deployments

        statement = update(deployments).where(deployments.c.id == deployment.id)
        await tx.deployments._statements.run(  # type: ignore[attr-defined]
            statement.values(fencing=deployment.fencing + 1, lease_owner="taker")
        )

    await world.database.transact(work)
    return Lease(deployment.id, ingest_id, deployment.target, deployment.fencing + 1)


@pytest.mark.extended
@pytest.mark.extended_when("postgresql")
async def test_a_long_create_keeps_its_lease_over_many_of_its_lengths(
    both_worlds: World, emulator: OllamaEmulator
) -> None:
    world = both_worlds
    stall = emulator.faults.add(Fault("stall", "create", after_line=1))
    ingest_id = await world.stored(gguf())
    # Long enough that a busy machine still renews in time: a lease that runs out there is no fault.
    world.worker(owner="first", lease_seconds=2)
    await stall.wait_stalled()
    world.worker(owner="second", lease_seconds=2)
    for _ in range(30):
        assert await world.claim("thief", 2) is None
        await asyncio.sleep(0.2)
    stall.release()
    ingest = await world.done(ingest_id)
    assert ingest.deployments[0].attempts == 1
    assert await world.states(ingest_id) == "PUSHING CREATING READY"
    assert len(emulator.calls.named("create")) == 1


@pytest.mark.extended_unless("create-place1")
@pytest.mark.parametrize(("call", "place"), [("blob_post", {"at_bytes": 10}), ("create", {"after_line": 1})])
async def test_stop_gives_leases_back_at_once(
    both_worlds: World, emulator: OllamaEmulator, call: str, place: dict[str, int]
) -> None:
    world = both_worlds
    stall = emulator.faults.add(Fault("stall", call, **place))  # type: ignore[arg-type]
    ingest_id = await world.stored(gguf())
    # What a create has begun may go on there: the turn on the target is not given back, it runs out.
    worker = world.worker(owner="first", lease_seconds=3 if call == "create" else 600)
    await stall.wait_stalled()
    await worker.stop()
    assert not (await world.ingest(ingest_id)).done
    lease = await world.claim("second")
    assert lease is not None
    assert lease.ingest_id == ingest_id
    await world.database.transact(lambda tx: tx.deployments.release_all("second"))
    world.worker(owner="third")
    assert (await world.done(ingest_id)).deployments[0].state is DeploymentState.READY
    assert (await world.states(ingest_id)).split().count("READY") == 1


async def test_a_claim_that_stop_interrupts_leaves_no_lease(both_worlds: World) -> None:
    world = both_worlds
    for number in range(8):
        ingest_id = await world.stored(gguf(), f"m{number}")
        worker = world.worker(owner=f"brief {number}", lease_seconds=600)
        for _ in range(number):
            await asyncio.sleep(0)
        await worker.stop()
        if (await world.ingest(ingest_id)).done:
            continue
        lease = await world.claim("next")
        assert lease is not None, f"after {number} steps"
        await world.moves(lease).move(DeploymentState.FAILED)


async def test_a_fault_of_ours_does_not_end_the_worker(
    world: World, emulator: OllamaEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    real = world.database.transact
    await world.database.transact(lambda tx: tx.targets.serve(["a"]))
    left = [3]

    async def breaks(work: object) -> object:
        left[0] -= 1
        if left[0] >= 0 and "announce" not in repr(work):
            raise RuntimeError("a bug")
        return await real(work)  # type: ignore[arg-type]

    ingest_id = await world.stored(gguf())
    world.database.transact = breaks  # type: ignore[method-assign,assignment]
    world.worker()
    assert (await world.done(ingest_id)).deployments[0].state is DeploymentState.READY
    assert "unforeseen fault while claiming" in caplog.text


async def test_events_of_one_ingest_have_no_gap_under_two_writers(both_worlds: World) -> None:
    world = both_worlds
    ingest_id = await world.stored(gguf())
    lease = await world.claim("worker")
    assert lease is not None

    async def other(text: str) -> None:
        async def work(tx: object) -> None:
            before = await tx.ingests.lock(ingest_id)  # type: ignore[attr-defined]
            news = [NewEvent("notice", {"message": text})]
            await tx.ingests.save(before, before, news, before.updated_at)  # type: ignore[attr-defined]

        await world.database.transact(work)

    await asyncio.gather(
        *(other(f"other {number}") for number in range(15)),
        *(world.moves(lease).statuses([f"said {number}"]) for number in range(15)),
    )
    events = await world.events(ingest_id)
    assert sum(event.kind == "notice" for event in events) == 15
    assert sum(event.kind == "deployment_status" for event in events) == 15
