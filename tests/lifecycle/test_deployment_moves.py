"""Every state of a deployment against every move of a worker, under a lease that holds and one lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import product

import pytest

from ingest_service.database import Database, Lease
from ingest_service.forwarding.moves import CancelDue, DeploymentMoves, LeaseLost
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Failure, Ingest
from ingest_service.vocabulary.states import DEPLOYMENT_MOVING, DeploymentState, FileState, IngestState
from tests.database.records import deployment, file, get, ingest, insert, later

pytestmark = pytest.mark.extended_when("postgresql")

FENCING = 5
_FAILURE = Failure(Reason.TARGET_REFUSED, "no")
_D = DeploymentState
Call = Callable[[DeploymentMoves], Awaitable[object]]
_CALLS: dict[str, Call] = {
    "read": lambda moves: moves.read(),
    "status": lambda moves: moves.statuses(["new words", "newer words"]),
    "notice": lambda moves: moves.notice("a notice"),
    **{
        f"to {state}": lambda moves, state=state: moves.move(state, failure=_FAILURE)  # type: ignore[misc]
        for state in DeploymentState
    },
}
#: The state of an ingest with a first deployment in each state, and one more that is READY.
_FOLLOWS = {
    **dict.fromkeys(DEPLOYMENT_MOVING, IngestState.FORWARDING),
    _D.READY: IngestState.READY,
    _D.FAILED: IngestState.FAILED,
    _D.CANCELLED: IngestState.CANCELLED,
    _D.SUPERSEDED: IngestState.READY,
    _D.LOST: IngestState.FAILED,
}


async def _placed(database: Database, state: DeploymentState, *, cancelling: bool = False) -> Ingest:
    of_ingest = IngestState.CANCELLING if cancelling else _FOLLOWS[state]
    one = ingest(
        file(FileState.STORED),
        deployment("a", state, fencing=FENCING, cancel_requested=cancelling),
        deployment("b", _D.READY),
        state=of_ingest,
    )
    await insert(database, one)
    return one


def _moves(database: Database, one: Ingest, fencing: int = FENCING) -> DeploymentMoves:
    lease = Lease(one.deployments[0].id, one.id, "a", fencing)
    return DeploymentMoves(database, lease, lambda: later(1))


async def test_under_a_lease_that_holds(database: Database) -> None:
    for state, (name, call) in product(DeploymentState, _CALLS.items()):
        one = await _placed(database, state)
        if state not in DEPLOYMENT_MOVING:
            with pytest.raises(LeaseLost):
                await call(_moves(database, one))
            assert await get(database, one) == one
            continue
        await call(_moves(database, one))
        now = await get(database, one)
        events = await database.read(lambda tx, one=one: tx.events.after(one.id, 0, 9))  # type: ignore[misc]
        expected = _D(name.removeprefix("to ")) if name.startswith("to ") else state
        assert now.deployments[0].state is expected
        assert now.state is _FOLLOWS[expected]
        kinds = [event.kind for event in events]
        if name == "read":
            assert now == one
        elif name in {"status", "notice"}:
            assert kinds == {"status": ["deployment_status"] * 2, "notice": ["notice"]}[name]
        else:
            moved = ["deployment_state"] * (expected is not state)
            assert kinds == [*moved, *["ingest_state"] * (now.state is not one.state)]


async def test_of_a_cancelled_ingest(database: Database) -> None:
    """No further step begins, and however the running one ends, the ingest ends CANCELLED."""
    for before, after in product(DEPLOYMENT_MOVING, DeploymentState):
        one = await _placed(database, before, cancelling=True)
        if after in DEPLOYMENT_MOVING:
            with pytest.raises(CancelDue):
                await _moves(database, one).move(after)
            assert await get(database, one) == one
            continue
        await _moves(database, one).move(after, failure=_FAILURE)
        now = await get(database, one)
        assert now.state is IngestState.CANCELLED
        assert now.deployments[0].state is after
        # What the target has by then is reported.
        assert now.deployments[1].state is _D.READY


@pytest.mark.extended_when("-6")
@pytest.mark.parametrize("fencing", [FENCING - 1, FENCING + 1])
async def test_under_a_lease_that_was_lost(database: Database, fencing: int) -> None:
    for state, call in product(DeploymentState, _CALLS.values()):
        one = await _placed(database, state)
        with pytest.raises(LeaseLost):
            await call(_moves(database, one, fencing))
        assert await get(database, one) == one


async def test_of_an_ingest_that_is_gone(database: Database) -> None:
    moves = DeploymentMoves(database, Lease("d", "none", "a", 1), lambda: later(1))
    for call in _CALLS.values():
        with pytest.raises(LeaseLost):
            await call(moves)


async def test_the_same_words_again_are_no_news(database: Database) -> None:
    one = await _placed(database, _D.CREATING)
    for _ in range(3):
        await _moves(database, one).statuses(["the same", "the same"])
    now = await get(database, one)
    assert now.last_sequence == 1
    assert now.deployments[0].status_events == 1
