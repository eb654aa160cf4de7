"""One attempt at one deployment: driven under its lease, its end recorded exactly once."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import datetime, timedelta

from ingest_service.blobs import Vetting
from ingest_service.database import Database, Lease, Transaction
from ingest_service.events import Hub
from ingest_service.forwarding.breaker import Breaker
from ingest_service.forwarding.cut_through import CutThrough
from ingest_service.forwarding.driver import Driver
from ingest_service.forwarding.moves import CancelDue, DeploymentMoves, LeaseLost, SupersededByNewer
from ingest_service.forwarding.ollama import OllamaClient
from ingest_service.forwarding.pushing import BlobPush
from ingest_service.forwarding.settings import ForwardingSettings
from ingest_service.forwarding.target import NoSpace, Resting, Target, TargetError, Unreachable
from ingest_service.forwarding.turn import TargetTurn
from ingest_service.storage import BlobStore
from ingest_service.vocabulary.errors import IngestError
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Failure
from ingest_service.vocabulary.states import DeploymentState

_log = logging.getLogger(__name__)
_LET_GO = (
    "Cancelled while the target was creating the model. It did not end in time, so the service no longer"
    " waits for it: the target may still finish it, and the model may appear there."
)


class Attempt:
    """Drives, keeps the lease, writes progress, records the end."""

    def __init__(
        self,
        lease: Lease,
        target: Target,
        breaker: Breaker,
        *,
        database: Database,
        store: BlobStore,
        hub: Hub,
        settings: ForwardingSettings,
        vetting: Vetting,
        beside: CutThrough | None,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._hub = hub
        self._breaker = breaker
        self._settings = settings
        self._lease = lease
        self._clock = clock
        self._moves = DeploymentMoves(database, lease, clock)
        owner = f"{lease.deployment_id}/{lease.fencing}"
        self._turn = TargetTurn(database, lease.target, owner, settings.lease_seconds)
        client = OllamaClient(target)
        push = BlobPush(client, store, vetting, self._moves, target, beside=beside)
        #: When the cancel of a create that runs was first seen; None: no cancel.
        self._cancel_seen_seconds: float | None = None
        self._news, self._news_seconds = 0, 0.0
        self._is_let_go = False
        self._driver = Driver(
            client, push, self._moves, self._turn, breaker, create_seconds=settings.create_seconds
        )

    async def run(self) -> None:
        """To its end, whatever that is; raises nothing that was foreseen."""
        driving = asyncio.create_task(self._driver.run())
        renewing = asyncio.create_task(self._renew(driving))
        extra = {"ingest": self._lease.ingest_id, "target": self._lease.target}
        try:
            is_cancel_due = await asyncio.shield(renewing)
            driving.cancel()
            await asyncio.wait({driving})
            await self._record(driving, is_cancel_due=is_cancel_due)
        except LeaseLost:
            _log.info("a deployment is no longer ours", extra=extra)
        except IngestError:
            # The lease runs out, and whoever claims the deployment then asks `show` before anything else.
            _log.exception("a deployment's end could not be recorded", extra=extra)
        finally:
            driving.cancel()
            # The renewal ends with the driver; cancelled, it could leave a statement that revives the lease.
            await asyncio.gather(driving, renewing, return_exceptions=True)

    async def _renew(self, driving: asyncio.Task[None]) -> bool:
        """Keeps the lease and writes progress until the driver has ended or must end: the lease is lost, or a
        cancel is due (True)."""
        seconds = self._settings.lease_seconds
        step = min(1.0, seconds / 3)
        written, waited = self._driver.progress, 0.0
        while True:
            await asyncio.wait({driving}, timeout=step)
            if driving.done():
                return False
            waited += step
            now = self._driver.progress
            progress = now if now != written else None
            if progress is None and waited < seconds / 3:
                continue
            try:
                cancel = await self._renewed(progress)
                if cancel is None:
                    return False
                if cancel and await self._must_end_now():
                    return True
            except IngestError:
                continue
            if progress is not None:
                written = progress
                self._hub.wake(self._lease.ingest_id)
            waited = 0.0

    async def _must_end_now(self) -> bool:
        """After a cancel: all before a create is torn off at once.

        A create that runs is left to answer for a while, since breaking it off does not undo it and makes
        some versions of Ollama hang. Without anything new, or after too long in all, it is let go.
        """
        if (await self._moves.read())[1].state is not DeploymentState.CREATING:
            return True
        now = asyncio.get_running_loop().time()
        if self._cancel_seen_seconds is None:
            self._cancel_seen_seconds = now
            self._news, self._news_seconds = self._driver.news, now
        if self._driver.news != self._news:
            self._news, self._news_seconds = self._driver.news, now
        self._is_let_go = (
            now - self._news_seconds >= self._settings.cancel_silence_seconds
            or now - self._cancel_seen_seconds >= self._settings.cancel_total_seconds
        )
        return self._is_let_go

    async def _renewed(self, progress: tuple[int, int] | None) -> bool | None:
        async def work(tx: Transaction) -> tuple[bool, bool | None]:
            has_turn = await self._turn.renew(tx)
            return has_turn, await tx.deployments.renew(self._lease, self._settings.lease_seconds, progress)

        has_turn, cancel = await self._database.transact(work)
        if not has_turn:
            self._turn.lost()
        return cancel

    async def _record(self, driving: asyncio.Task[None], *, is_cancel_due: bool) -> None:
        """Writes how the attempt ended, exactly once."""
        error = None if driving.cancelled() else driving.exception()
        try:
            if isinstance(error, TargetError):
                await self._failed(error)
            elif isinstance(error, LeaseLost | CancelDue | SupersededByNewer | IngestError):
                raise error
            elif error is not None:
                _log.error("unforeseen fault while driving a deployment", exc_info=error)
                words = "An unforeseen fault of the service; see its log."
                await self._failed(Unreachable(words, reason=Reason.STORAGE_FAILED))
            elif driving.cancelled() and is_cancel_due:
                raise CancelDue
        except CancelDue:
            if self._is_let_go:
                target = {"target": self._lease.target}
                failure = Failure(Reason.TARGET_UNREACHABLE, _LET_GO, target)
                _log.warning("a create was let go after a cancel", extra=target)
                await self._moves.move(DeploymentState.CANCELLED, failure=failure, next_attempt_at=None)
            else:
                await self._moves.move(DeploymentState.CANCELLED, next_attempt_at=None)
        except SupersededByNewer:
            await self._moves.move(DeploymentState.SUPERSEDED, next_attempt_at=None)

    async def _failed(self, error: TargetError) -> None:
        is_silent = isinstance(error, Unreachable) and error.reason is Reason.TARGET_UNREACHABLE
        if is_silent and not isinstance(error, Resting):
            self._breaker.failed(error.words)
        ingest, deployment = await self._moves.read()
        now = self._clock()
        failure = Failure(error.reason, error.words, {"target": deployment.target})
        # Never later than it could be by the clock of now: the row may come from one that was ahead.
        latest = now + timedelta(seconds=self._settings.retry_seconds)
        retry_until = min(deployment.retry_until or latest, latest)
        extra = {"ingest": ingest.id, "target": deployment.target, "words": error.words}
        if deployment.cancel_requested:
            await self._moves.move(DeploymentState.CANCELLED, failure=failure)
        elif isinstance(error, Unreachable | NoSpace) and now < retry_until:
            due = now + timedelta(seconds=self._backoff_seconds(deployment.attempts))
            _log.warning("a deployment failed and will be tried again", extra=extra)
            await self._moves.move(
                DeploymentState.PENDING,
                failure=failure,
                next_attempt_at=min(due, retry_until),
                retry_until=retry_until,
            )
        else:
            _log.error("a deployment failed", extra=extra)
            await self._moves.move(DeploymentState.FAILED, failure=failure)

    def _backoff_seconds(self, attempts: int) -> float:
        """Full jitter: targets that died together are not asked together."""
        doublings = min(max(attempts - 1, 0), 16)
        ceiling = min(
            self._settings.max_backoff_seconds, self._settings.first_backoff_seconds * 2.0**doublings
        )
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)
