"""Deployments on targets that no process works for any more: they end too (design.md section 5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from ingest_service.database import Database, Transaction
from ingest_service.database.types import latest_believed
from ingest_service.forwarding.moves import DeploymentMoves, LeaseLost
from ingest_service.forwarding.settings import ForwardingSettings
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Failure
from ingest_service.vocabulary.states import DeploymentState

_log = logging.getLogger(__name__)
#: Nothing waits longer for its next try; what says so was written by a clock that was ahead.
_LONGEST_WAIT_SECONDS = 120.0


class ServedTargets:
    """Says again and again which targets this process works for, and fails what is left to nobody.

    A target is nobody's once no process has said that it works for it for `patience_seconds`: a process that
    restarts with its old settings within that time loses nothing. Only a process that could itself say so
    all that time may judge: while the database is away, nobody can.
    """

    def __init__(
        self,
        database: Database,
        names: Sequence[str],
        settings: ForwardingSettings,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._names = names
        #: Two rounds may be missed, and a dead process's work is taken over after a lease.
        self.patience_seconds = 2 * settings.announce_seconds + settings.lease_seconds
        self._clock = clock
        # By the database's clock, which sees it if the machine was suspended.
        self._since_us: int | None = None
        self._last_us = 0

    async def round(self) -> None:
        """Once every `announce_seconds`. Raises DatabaseDown."""
        now_us = await announce(self._database, self._names)
        patience_us = int(self.patience_seconds * 1_000_000)
        if self._since_us is None or not 0 <= now_us - self._last_us < patience_us:
            self._since_us = now_us
        self._last_us = now_us
        if now_us - self._since_us >= patience_us:
            await fail_unserved(self._database, self.patience_seconds, self._clock)


async def announce(database: Database, names: Sequence[str]) -> int:
    """Says that this process works for these targets; answers the time by the database's clock, in us."""

    async def work(tx: Transaction) -> int:
        await tx.targets.serve(names)
        await tx.targets.correct_times_ahead()
        return await tx.targets.now_us()

    return await database.transact(work)


async def fail_unserved(database: Database, patience_seconds: float, clock: Callable[[], datetime]) -> None:
    """Fails what has been due for so long on targets that no process worked for meanwhile."""
    served = await database.read(lambda tx: tx.targets.served_within(patience_seconds))
    now = clock()
    waiting_since = now - timedelta(seconds=patience_seconds)
    latest = latest_believed(now, _LONGEST_WAIT_SECONDS)
    waiting = await database.read(lambda tx: tx.deployments.unserved(served, waiting_since, latest))
    for lease in waiting:
        words = (
            f"No process of the service has the target {lease.target} in its settings any more: put it back,"
            " then retry."
        )
        failure = Failure(Reason.TARGET_UNREACHABLE, words, {"target": lease.target})
        moves = DeploymentMoves(database, lease, clock)
        try:
            _, deployment = await moves.read()
            ended = DeploymentState.CANCELLED if deployment.cancel_requested else DeploymentState.FAILED
            await moves.move(ended, failure=failure, next_attempt_at=None)
        except LeaseLost:
            continue
        _log.error("a deployment's target is served by nobody", extra={"ingest": lease.ingest_id})
