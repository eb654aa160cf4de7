"""Deployments on targets that no process works for any more: they end too (design.md section 5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from ingest_service.database import Database, Transaction
from ingest_service.database.types import latest_believed
from ingest_service.forwarding.moves import DeploymentMoves, LeaseLost
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Failure
from ingest_service.vocabulary.states import DeploymentState

_log = logging.getLogger(__name__)
#: Several announcements of another process must have been missed.
_LEAST_PATIENCE_SECONDS = 120.0


async def serve_targets(
    database: Database, names: Sequence[str], retry_seconds: float, clock: Callable[[], datetime]
) -> None:
    """Says that this process works for these targets, and fails what waited for others for too long.

    A target counts as served for as long as a deployment may be tried again after some process last said so:
    a replica that restarts with the old settings within that time loses nothing.
    """

    async def announce(tx: Transaction) -> None:
        await tx.targets.serve(names)
        await tx.targets.correct_times_ahead()

    await database.transact(announce)
    patience = max(retry_seconds, _LEAST_PATIENCE_SECONDS)
    served = await database.read(lambda tx: tx.targets.served_within(patience))
    now = clock()
    waiting_since, latest = now - timedelta(seconds=patience), latest_believed(now, patience)
    waiting = await database.read(lambda tx: tx.deployments.unserved(served, waiting_since, latest))
    for lease in waiting:
        words = f"No process of the service has had the target {lease.target} in its settings for too long."
        failure = Failure(Reason.TARGET_UNREACHABLE, words, {"target": lease.target})
        moves = DeploymentMoves(database, lease, clock)
        try:
            _, deployment = await moves.read()
            ended = DeploymentState.CANCELLED if deployment.cancel_requested else DeploymentState.FAILED
            await moves.move(ended, failure=failure, next_attempt_at=None)
        except LeaseLost:
            continue
        _log.error("a deployment's target is served by nobody", extra={"ingest": lease.ingest_id})
