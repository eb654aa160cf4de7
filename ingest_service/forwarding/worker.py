"""Claims deployments and has them driven, several at once, one per target."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from ingest_service.database import Database, Lease
from ingest_service.events import Hub
from ingest_service.events.hub import wait_for_flag
from ingest_service.forwarding.driver import Driver
from ingest_service.forwarding.moves import CancelDue, DeploymentMoves, LeaseLost
from ingest_service.forwarding.ollama import OllamaClient
from ingest_service.forwarding.target import NoSpace, Target, TargetError, Unreachable
from ingest_service.storage import BlobStore
from ingest_service.vocabulary.errors import IngestError
from ingest_service.vocabulary.records import Failure
from ingest_service.vocabulary.states import DeploymentState

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ForwardingSettings:
    """How the worker works."""

    #: From the first attempt on, failures that time may heal are tried again for this long.
    retry_seconds: float = 3600.0
    lease_seconds: float = 15.0
    max_concurrent: int = 4
    poll_seconds: float = 2.0
    first_backoff_seconds: float = 1.0
    max_backoff_seconds: float = 60.0


class Worker:
    """Runs until `stop`. What it holds when it is killed is taken over once the lease has run out."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        hub: Hub,
        targets: Sequence[Target],
        settings: ForwardingSettings,
        *,
        owner: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._hub = hub
        self._targets = {target.name: target for target in targets}
        self._settings = settings
        self._owner = owner
        self._clock = clock
        self._running: dict[str, asyncio.Task[None]] = {}
        self._main: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to claim."""
        if self._targets:
            self._main = asyncio.create_task(self._claim_for_ever())

    async def stop(self) -> None:
        """Ends without waiting for a create (design.md section 5); leases are given back."""
        if self._main is None:
            return
        self._main.cancel()
        await asyncio.gather(self._main, return_exceptions=True)
        driving = list(self._running.values())
        for task in driving:
            task.cancel()
        await asyncio.gather(*driving, return_exceptions=True)
        with contextlib.suppress(IngestError):
            await self._database.transact(lambda tx: tx.deployments.release_all(self._owner))

    async def _claim_for_ever(self) -> None:
        with self._hub.waiting_for_any() as flag:
            while True:
                flag.clear()
                try:
                    while len(self._running) < self._settings.max_concurrent:
                        lease = await self._claim()
                        if lease is None:
                            break
                        task = asyncio.create_task(self._drive(lease))
                        self._running[lease.target] = task
                        task.add_done_callback(partial(self._ended, lease.target, flag))
                except IngestError:
                    _log.warning("no deployment could be claimed; the database does not answer")
                except Exception:  # noqa: BLE001 (logged)
                    # A worker that no longer claims looks healthy and does nothing.
                    _log.exception("unforeseen fault while claiming a deployment")
                await wait_for_flag(flag, self._settings.poll_seconds)

    def _ended(self, target: str, flag: asyncio.Event, task: asyncio.Task[None]) -> None:
        del self._running[target]
        if not task.cancelled() and task.exception() is not None:
            _log.error("a deployment's driver ended with an unforeseen fault", exc_info=task.exception())
        flag.set()

    async def _claim(self) -> Lease | None:
        names, busy = sorted(self._targets), sorted(self._running)
        claiming = asyncio.create_task(
            self._database.transact(
                lambda tx: tx.deployments.claim(self._owner, names, busy, self._settings.lease_seconds)
            )
        )
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # It commits all the same; `stop` gives the lease back once it is there.
            await asyncio.gather(claiming, return_exceptions=True)
            raise

    async def _drive(self, lease: Lease) -> None:
        moves = DeploymentMoves(self._database, lease, self._clock)
        driver = Driver(OllamaClient(self._targets[lease.target]), self._store, moves)
        driving = asyncio.create_task(driver.run())
        renewing = asyncio.create_task(self._renew(lease, moves, driver, driving))
        try:
            is_cancel_due = await asyncio.shield(renewing)
            driving.cancel()
            await asyncio.wait({driving})
            await self._record(moves, driving, is_cancel_due=is_cancel_due)
        except LeaseLost:
            _log.info("a deployment is no longer ours", extra=_of(lease))
        except IngestError:
            # The lease runs out, and whoever claims the deployment then asks `show` before anything else.
            _log.exception("a deployment's end could not be recorded", extra=_of(lease))
        finally:
            driving.cancel()
            # The renewal ends with the driver; cancelled, it could leave a statement that revives the lease.
            await asyncio.gather(driving, renewing, return_exceptions=True)

    async def _renew(
        self, lease: Lease, moves: DeploymentMoves, driver: Driver, driving: asyncio.Task[None]
    ) -> bool:
        """Keeps the lease and writes progress until the driver has ended or must end: the lease is lost, or a
        cancel is due (True)."""
        seconds = self._settings.lease_seconds
        step = min(1.0, seconds / 3)
        written, waited = driver.progress, 0.0
        while True:
            await asyncio.wait({driving}, timeout=step)
            if driving.done():
                return False
            waited += step
            progress = driver.progress if driver.progress != written else None
            if progress is None and waited < seconds / 3:
                continue
            try:
                cancel = await self._renewed(lease, progress)
                if cancel is None:
                    return False
                # A create that runs is left to answer (design.md section 2); all before it is torn off.
                if cancel and (await moves.read())[1].state is not DeploymentState.CREATING:
                    return True
            except IngestError:
                continue
            if progress is not None:
                written = progress
                self._hub.wake(lease.ingest_id)
            waited = 0.0

    async def _renewed(self, lease: Lease, progress: tuple[int, int] | None) -> bool | None:
        return await self._database.transact(
            lambda tx: tx.deployments.renew(lease, self._settings.lease_seconds, progress)
        )

    async def _record(
        self, moves: DeploymentMoves, driving: asyncio.Task[None], *, is_cancel_due: bool
    ) -> None:
        """Writes how the attempt ended, exactly once."""
        error = None if driving.cancelled() else driving.exception()
        try:
            if isinstance(error, TargetError):
                await self._failed(moves, error)
            elif isinstance(error, LeaseLost | CancelDue | IngestError):
                raise error
            elif error is not None:
                _log.error("unforeseen fault while driving a deployment", exc_info=error)
                await self._failed(moves, Unreachable("An unforeseen fault of the service; see its log."))
            elif driving.cancelled() and is_cancel_due:
                raise CancelDue
        except CancelDue:
            await moves.move(DeploymentState.CANCELLED, next_attempt_at=None)

    async def _failed(self, moves: DeploymentMoves, error: TargetError) -> None:
        ingest, deployment = await moves.read()
        now = self._clock()
        failure = Failure(error.reason, error.words, {"target": deployment.target})
        retry_until = deployment.retry_until or now + timedelta(seconds=self._settings.retry_seconds)
        extra = {"ingest": ingest.id, "target": deployment.target, "words": error.words}
        if deployment.cancel_requested:
            await moves.move(DeploymentState.CANCELLED, failure=failure)
        elif isinstance(error, Unreachable | NoSpace) and now < retry_until:
            due = now + timedelta(seconds=self._backoff_seconds(deployment.attempts))
            _log.warning("a deployment failed and will be tried again", extra=extra)
            await moves.move(
                DeploymentState.PENDING,
                failure=failure,
                next_attempt_at=min(due, retry_until),
                retry_until=retry_until,
            )
        else:
            _log.error("a deployment failed", extra=extra)
            await moves.move(DeploymentState.FAILED, failure=failure)

    def _backoff_seconds(self, attempts: int) -> float:
        """Full jitter: targets that died together are not asked together."""
        doublings = min(max(attempts - 1, 0), 16)
        ceiling = min(
            self._settings.max_backoff_seconds, self._settings.first_backoff_seconds * 2.0**doublings
        )
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)


def _of(lease: Lease) -> dict[str, str]:
    return {"ingest": lease.ingest_id, "target": lease.target}
