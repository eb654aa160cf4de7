"""Claims deployments and has them driven, several at once, one per target."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from ingest_service.blobs import Vetting
from ingest_service.database import Database, Lease
from ingest_service.events import Hub
from ingest_service.events.hub import wait_for_flag
from ingest_service.forwarding.attempt import Attempt
from ingest_service.forwarding.breaker import Breaker
from ingest_service.forwarding.cut_through import CutThrough
from ingest_service.forwarding.probes import Probes
from ingest_service.forwarding.settings import ForwardingSettings
from ingest_service.forwarding.target import Target
from ingest_service.forwarding.unserved import ServedTargets
from ingest_service.storage import BlobStore
from ingest_service.vocabulary.errors import IngestError

_log = logging.getLogger(__name__)


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
        vetting: Vetting,
        beside: CutThrough | None = None,
    ) -> None:
        self._database = database
        self._store = store
        self._hub = hub
        self._targets = {target.name: target for target in targets}
        self._settings = settings
        self._owner = owner
        self._clock = clock
        self._vetting = vetting
        self._beside = beside
        self._breakers = {target.name: Breaker() for target in targets}
        self._served_once = asyncio.Event()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._main: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to claim."""
        self._main = asyncio.create_task(self._run())

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

    async def _run(self) -> None:
        # The turn on a target is a row: it has to be there before the first deployment is claimed.
        serving = asyncio.create_task(self._serve_for_ever())
        probing = asyncio.create_task(self._probe_for_ever())
        try:
            await self._served_once.wait()
            await (self._claim_for_ever() if self._targets else serving)
        finally:
            serving.cancel()
            probing.cancel()
            await asyncio.gather(serving, probing, return_exceptions=True)

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
                    # The database tells of its own outage, once.
                    _log.debug("no deployment could be claimed; the database does not answer")
                except Exception:  # noqa: BLE001 (logged)
                    # A worker that no longer claims looks healthy and does nothing.
                    _log.exception("unforeseen fault while claiming a deployment")
                await wait_for_flag(flag, self._settings.poll_seconds)

    async def _probe_for_ever(self) -> None:
        probes = Probes(self._database, self._targets, self._breakers)
        while True:
            await asyncio.sleep(self._settings.probe_seconds)
            try:
                for name in await probes.round(frozenset(self._running)):
                    _log.info("a target answers again", extra={"target": name})
                    self._hub.wake_everybody()
            except IngestError:
                # As above: and this comes every second.
                _log.debug("what waits for a target could not be woken; the database does not answer")
            except Exception:  # noqa: BLE001 (logged)
                _log.exception("unforeseen fault while asking whether targets are back")

    def _ended(self, target: str, flag: asyncio.Event, task: asyncio.Task[None]) -> None:
        del self._running[target]
        if not task.cancelled() and task.exception() is not None:
            _log.error("a deployment's driver ended with an unforeseen fault", exc_info=task.exception())
        flag.set()

    async def _claim(self) -> Lease | None:
        names, busy = sorted(self._targets), sorted(self._running)
        resting = sorted(name for name, breaker in self._breakers.items() if breaker.rests)
        lease_seconds, now = self._settings.lease_seconds, self._clock()
        claiming = asyncio.create_task(
            self._database.transact(
                lambda tx: tx.deployments.claim(
                    self._owner,
                    names,
                    busy,
                    lease_seconds,
                    resting_targets=resting,
                    due_by=now,
                    max_wait_seconds=2 * self._settings.max_backoff_seconds,
                )
            )
        )
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # It commits all the same; `stop` gives the lease back once it is there.
            await asyncio.gather(claiming, return_exceptions=True)
            raise

    async def _drive(self, lease: Lease) -> None:
        attempt = Attempt(
            lease,
            self._targets[lease.target],
            self._breakers[lease.target],
            database=self._database,
            store=self._store,
            hub=self._hub,
            settings=self._settings,
            vetting=self._vetting,
            beside=self._beside,
            clock=self._clock,
        )
        await attempt.run()

    async def _serve_for_ever(self) -> None:
        served = ServedTargets(self._database, sorted(self._targets), self._settings, self._clock)
        while True:
            try:
                await served.round()
                self._served_once.set()
            except IngestError:
                _log.debug("the targets could not be looked after; the database does not answer")
            except Exception:  # noqa: BLE001 (logged)
                _log.exception("unforeseen fault while looking after the targets")
            is_due = self._settings.announce_seconds if self._served_once.is_set() else 1.0
            await asyncio.sleep(is_due)
