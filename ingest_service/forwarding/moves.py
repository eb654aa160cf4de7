"""Moves of one deployment's row: each one transaction under the ingest's lock, each only under our lease."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from ingest_service.database import Database, Lease, Transaction
from ingest_service.lifecycle import Change
from ingest_service.vocabulary.records import Deployment, Ingest
from ingest_service.vocabulary.states import DEPLOYMENT_MOVING, DeploymentState


class LeaseLost(Exception):
    """Another worker has taken over, or the deployment was ended meanwhile: nothing is ours to write."""


class CancelDue(Exception):
    """A cancel was asked for: no further step may begin."""


class SupersededByNewer(Exception):
    """A newer ingest of the name is stored and goes to this target: no further step may begin."""


#: Steps that change something on the target, and must not begin once a newer ingest of the name is stored.
_STEPS = frozenset({DeploymentState.PUSHING, DeploymentState.CREATING})


class DeploymentMoves:
    """What a worker may do to the deployment that it holds the lease of. Each method may raise LeaseLost."""

    def __init__(self, database: Database, lease: Lease, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._lease = lease
        self._clock = clock

    async def read(self) -> tuple[Ingest, Deployment]:
        """The ingest and our deployment of it, as they are."""
        ingest = await self._database.read(lambda tx: tx.ingests.get(self._lease.ingest_id))
        return self._ours(ingest)

    async def is_retried(self) -> bool:
        """Somebody asked for this very attempt: it is the first since RetryIngest, but not the first of all.

        RetryIngest counts the attempts anew, never the fencing number, which each claim raises.
        """
        _, deployment = await self.read()
        return deployment.attempts == 1 and deployment.fencing > 1

    async def move(self, state: DeploymentState, **values: Any) -> Deployment:
        """Moves our deployment. Raises CancelDue or SupersededByNewer instead of a move to a further step of
        one that was cancelled, or that a newer ingest of the name has made void."""

        async def apply(tx: Transaction, change: Change) -> None:
            # Judged under the ingest's lock: after a cancel was committed no create begins any more.
            if state in DEPLOYMENT_MOVING and self._find(change.before).cancel_requested:
                raise CancelDue
            if state in _STEPS and self._lease.target in await tx.ingests.targets_of_newer(change.before):
                raise SupersededByNewer
            change.deployment(self._lease.deployment_id, state, **values)

        return await self._change(apply)

    async def check_order(self) -> None:
        """Raises SupersededByNewer if a newer ingest of the name is stored and goes to this target."""
        ingest, _ = await self.read()
        if self._lease.target in await self._database.read(lambda tx: tx.ingests.targets_of_newer(ingest)):
            raise SupersededByNewer

    async def statuses(self, texts: Sequence[str]) -> None:
        """The target said these things, in this order."""

        async def apply(_tx: Transaction, change: Change) -> None:
            for text in texts:
                change.deployment_status(self._lease.deployment_id, text)

        await self._change(apply)

    async def notice(self, text: str) -> None:
        """Worth knowing, but no failure."""

        async def apply(_tx: Transaction, change: Change) -> None:
            change.notice(text)

        await self._change(apply)

    async def _change(self, apply: Callable[[Transaction, Change], Awaitable[None]]) -> Deployment:
        async def work(tx: Transaction) -> Deployment:
            before, _ = self._ours(await tx.ingests.lock(self._lease.ingest_id))
            change = Change(before, self._clock())
            await apply(tx, change)
            if change.after == before and not change.events:
                return self._find(before)
            return self._find(await tx.ingests.save(before, change.after, change.events, change.now))

        return await self._database.transact(work)

    def _ours(self, ingest: Ingest | None) -> tuple[Ingest, Deployment]:
        if ingest is None:
            raise LeaseLost
        deployment = self._find(ingest)
        if deployment.fencing != self._lease.fencing or deployment.state not in DEPLOYMENT_MOVING:
            raise LeaseLost
        return ingest, deployment

    def _find(self, ingest: Ingest) -> Deployment:
        return next(d for d in ingest.deployments if d.id == self._lease.deployment_id)
