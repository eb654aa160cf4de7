"""Queries on deployments: the job queue of the forwarding room."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy import BigInteger, ColumnElement, and_, bindparam, func, insert, literal, or_, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from ingest_service.database.rows import changed, deployment_from_row, deployment_values
from ingest_service.database.statements import ReadOrLock, Statements
from ingest_service.database.tables import deployments, ingests
from ingest_service.database.types import UtcMicros, database_now, lease_has_ended
from ingest_service.vocabulary.records import Deployment
from ingest_service.vocabulary.states import DEPLOYMENT_MOVING, DeploymentState, IngestState

_MOVING = [str(state) for state in DEPLOYMENT_MOVING]
_OF_INGESTS = ReadOrLock(
    select(deployments)
    .where(deployments.c.ingest_id.in_(bindparam("ingests", expanding=True)))
    .order_by(deployments.c.position)
)
_UNSERVED_PAGE = 100
_FORWARDED = [str(IngestState.FORWARDING), str(IngestState.CANCELLING)]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to drive one deployment; void once somebody claimed it with a higher fencing number."""

    deployment_id: str
    ingest_id: str
    target: str
    fencing: int


def _is_free(now: database_now) -> ColumnElement[bool]:
    """Nobody holds a live lease of it. One from a clock that was ahead is not believed."""
    until_us = deployments.c.lease_until_us
    return or_(until_us.is_(None), lease_has_ended(until_us, now))


@cache
def _claim(has_due_by: bool, has_latest: bool) -> ReturningUpdate[tuple[str, str, str, int]]:
    """The statement of `DeploymentQueries.claim`, built once: workers ask it again and again."""
    now = database_now()
    moment = bindparam("due_by", type_=UtcMicros) if has_due_by else now
    is_due = or_(deployments.c.next_attempt_at.is_(None), deployments.c.next_attempt_at <= moment)
    if has_latest:
        is_due = or_(is_due, deployments.c.next_attempt_at > bindparam("latest", type_=UtcMicros))
    due = (
        select(deployments.c.id)
        .join(ingests, ingests.c.id == deployments.c.ingest_id)
        .where(
            ingests.c.state.in_(_FORWARDED),
            ingests.c.deleted_at.is_(None),
            deployments.c.state.in_(_MOVING),
            deployments.c.target.in_(bindparam("on_targets", expanding=True)),
            deployments.c.target.not_in(bindparam("busy_targets", expanding=True)),
            _is_free(now),
            is_due,
            or_(
                deployments.c.target.not_in(bindparam("resting_targets", expanding=True)),
                deployments.c.attempts == 0,
                deployments.c.retry_until <= moment,
            ),
        )
        .order_by(ingests.c.number)
        .limit(1)
        .with_for_update(skip_locked=True, of=deployments)
    )
    return (
        update(deployments)
        .where(deployments.c.id == due.scalar_subquery())
        .values(
            lease_owner=bindparam("new_owner"),
            lease_until_us=now + bindparam("lease_us", type_=BigInteger),
            fencing=deployments.c.fencing + 1,
            attempts=deployments.c.attempts + 1,
            next_attempt_at=None,
            removed_at=None,
        )
        .returning(deployments.c.id, deployments.c.ingest_id, deployments.c.target, deployments.c.fencing)
    )


class DeploymentQueries:
    """Reads and writes `deployments`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def of_ingests(
        self, ingest_ids: Sequence[str], *, lock: bool = False
    ) -> dict[str, list[Deployment]]:
        """The deployments of each ingest, in the order of the configuration."""
        found: dict[str, list[Deployment]] = {ingest_id: [] for ingest_id in ingest_ids}
        for row in (await self._statements.run(_OF_INGESTS[lock], {"ingests": ingest_ids})).mappings():
            found[row["ingest_id"]].append(deployment_from_row(row))
        return found

    async def insert(self, new: Sequence[Deployment]) -> None:
        """Writes the deployments of a new ingest."""
        rows = [
            {**deployment_values(deployment), "position": position} for position, deployment in enumerate(new)
        ]
        if rows:
            await self._statements.run(insert(deployments), rows)

    async def save(self, before: Deployment, after: Deployment) -> None:
        """Writes what changed. A deployment that no longer moves, or waits, gives up its lease."""
        values = changed(deployment_values(before), deployment_values(after))
        if not values:
            return
        if after.state not in DEPLOYMENT_MOVING or after.next_attempt_at is not None:
            values |= {"lease_owner": None, "lease_until_us": None}
        await self._statements.run(update(deployments).where(deployments.c.id == after.id).values(**values))

    async def claim(
        self,
        owner: str,
        targets: Sequence[str],
        busy_targets: Sequence[str],
        lease_seconds: float,
        *,
        resting_targets: Sequence[str] = (),
        due_by: datetime | None = None,
        max_wait_seconds: float | None = None,
    ) -> Lease | None:
        """Takes the oldest due deployment on one of `targets` that is free; None if there is none.

        On `resting_targets`, which do not answer, only what was never tried, or has no time left to wait.
        `due_by` is the worker's own clock, by which it sets and judges what waits: by one that is ahead of it
        (the database's, the default) a deployment that was put off would be due again at once. What says that
        it waits for longer than `max_wait_seconds` was put off by a clock that was ahead: it is due.

        One conditional UPDATE; on PostgreSQL claimants pass by each other's rows (SKIP LOCKED), on SQLite the
        transaction holds the one write lock anyway and SQLAlchemy drops the clause.
        """
        parameters: dict[str, object] = {
            "on_targets": targets,
            "busy_targets": busy_targets,
            "resting_targets": resting_targets,
            "new_owner": owner,
            "lease_us": int(lease_seconds * 1_000_000),
        }
        if due_by is not None:
            parameters["due_by"] = due_by
        if due_by is not None and max_wait_seconds is not None:
            parameters["latest"] = due_by + timedelta(seconds=max_wait_seconds)
        statement = _claim("due_by" in parameters, "latest" in parameters)
        row = (await self._statements.run(statement, parameters)).one_or_none()
        return None if row is None else Lease(row.id, row.ingest_id, row.target, row.fencing)

    async def renew(
        self, lease: Lease, lease_seconds: float, progress: tuple[int, int] | None
    ) -> bool | None:
        """Extends a lease and writes the lossy progress with it.

        Answers whether a cancel was asked for, or None if the lease is lost.
        """
        values: dict[str, object] = {"lease_until_us": database_now() + int(lease_seconds * 1_000_000)}
        if progress is not None:
            values |= {"progress_bytes": progress[0], "progress_total_bytes": progress[1]}
        statement = (
            update(deployments)
            .where(
                and_(deployments.c.id == lease.deployment_id, deployments.c.fencing == lease.fencing),
                deployments.c.state.in_(_MOVING),
            )
            .values(values)
            .returning(deployments.c.cancel_requested)
        )
        return (await self._statements.run(statement)).scalar_one_or_none()

    async def unattended(self, ingest_id: str) -> set[str]:
        """The ingest's deployments that no worker holds a live lease of, by the database's clock."""
        query = select(deployments.c.id).where(
            deployments.c.ingest_id == ingest_id,
            _is_free(database_now()),
        )
        return set((await self._statements.run(query)).scalars())

    async def hold(self, ingest_id: str, target: str, owner: str, lease_seconds: float) -> None:
        """Keeps a deployment that waits from being claimed, for so long; none that somebody drives."""
        now = database_now()
        statement = (
            update(deployments)
            .where(
                deployments.c.ingest_id == ingest_id,
                deployments.c.target == target,
                deployments.c.state == str(DeploymentState.PENDING),
                or_(_is_free(now), deployments.c.lease_owner == owner),
            )
            .values(lease_owner=owner, lease_until_us=now + int(lease_seconds * 1_000_000))
        )
        await self._statements.run(statement)

    async def let_go(self, ingest_id: str, target: str, owner: str) -> None:
        """Ends a `hold`, if it is still the owner's."""
        statement = (
            update(deployments)
            .where(
                deployments.c.ingest_id == ingest_id,
                deployments.c.target == target,
                deployments.c.lease_owner == owner,
            )
            .values(lease_owner=None, lease_until_us=None)
        )
        await self._statements.run(statement)

    async def unserved(
        self, served: Collection[str], waiting_since: datetime, latest: datetime
    ) -> list[Lease]:
        """Deployments on other targets than these that nobody holds and that were due before that moment.

        Also those that say they are due after `latest`: a clock that was ahead wrote that.
        """
        due_at = func.coalesce(deployments.c.next_attempt_at, ingests.c.stored_at)
        query = (
            select(deployments.c.id, deployments.c.ingest_id, deployments.c.target, deployments.c.fencing)
            .join(ingests, ingests.c.id == deployments.c.ingest_id)
            .where(
                ingests.c.state.in_(_FORWARDED),
                deployments.c.state.in_(_MOVING),
                deployments.c.target.not_in(list(served)),
                _is_free(database_now()),
                or_(due_at < literal(waiting_since, UtcMicros), due_at > literal(latest, UtcMicros)),
            )
            .limit(_UNSERVED_PAGE)
        )
        rows = await self._statements.run(query)
        return [Lease(row.id, row.ingest_id, row.target, row.fencing) for row in rows]

    async def mark_removed(self, asked: Deployment, now: datetime) -> None:
        """The target has not got the model any more, as far as this attempt and those before it go."""
        statement = update(deployments).where(
            deployments.c.id == asked.id, deployments.c.fencing == asked.fencing
        )
        await self._statements.run(statement.values(removed_at=now))

    async def deleted_ready(self, canonical_model: str, targets: Collection[str]) -> list[str]:
        """Ids of the deleted ingests of the name that say READY of one of these targets, the newest first."""
        query = (
            select(ingests.c.id)
            .where(
                ingests.c.canonical_model == canonical_model,
                ingests.c.deleted_at.is_not(None),
                ingests.c.id.in_(
                    select(deployments.c.ingest_id).where(
                        deployments.c.target.in_(list(targets)),
                        deployments.c.state == str(DeploymentState.READY),
                    )
                ),
            )
            .order_by(ingests.c.number.desc())
        )
        return list((await self._statements.run(query)).scalars())

    async def release_all(self, owner: str) -> None:
        """Ends the leases of a worker that stops in good order, so that the next need not wait for them."""
        statement = (
            update(deployments)
            .where(deployments.c.lease_owner == owner)
            .values(lease_owner=None, lease_until_us=None)
        )
        await self._statements.run(statement)

    async def waited_for(self, targets: Collection[str]) -> set[str]:
        """Those of these targets on which something waits for its next try."""
        query = (
            select(deployments.c.target)
            .distinct()
            .where(
                deployments.c.target.in_(list(targets)),
                deployments.c.state == str(DeploymentState.PENDING),
                deployments.c.next_attempt_at.is_not(None),
            )
        )
        return set((await self._statements.run(query)).scalars())

    async def end_waits(self, targets: Collection[str]) -> int:
        """What waits for its next try on these targets is due now. Answers how many."""
        statement = (
            update(deployments)
            .where(
                deployments.c.target.in_(list(targets)),
                deployments.c.state == str(DeploymentState.PENDING),
                deployments.c.next_attempt_at.is_not(None),
            )
            .values(next_attempt_at=None)
        )
        return (await self._statements.run(statement)).rowcount

    async def moving_count(self) -> int:
        """Deployments that can still move."""
        query = select(func.count()).where(deployments.c.state.in_(_MOVING))
        return int((await self._statements.run(query)).scalar_one())
