"""Builds every part once, starts and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from importlib.metadata import version as distribution_version
from typing import Any

from ingest_service.blobs import Inspector, Rehasher, TakingBack, Vetting
from ingest_service.config import Settings
from ingest_service.database import hints_of
from ingest_service.events import Hub, Watches
from ingest_service.formats import FormatLimits
from ingest_service.formats.gguf import GgufLimits
from ingest_service.formats.json_files import JsonLimits
from ingest_service.forwarding import (
    CutThrough,
    ForwardingSettings,
    Target,
    TargetBoard,
    TargetPresence,
    TargetRemoval,
    Worker,
    warm_up,
)
from ingest_service.ingests.deploying import Deploying
from ingest_service.ingests.import_boot import ImportBoot
from ingest_service.ingests.imports import Imports
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.lost_models import LostModels
from ingest_service.ingests.readiness import Readiness
from ingest_service.ingests.rebuild import Progress, Rebuild, RebuildReport, Told
from ingest_service.ingests.recovery import Recovery
from ingest_service.ingests.removal import Removal
from ingest_service.ingests.service import Ingests
from ingest_service.ingests.sweep import Sweeper, SweepReport, SweepSettings
from ingest_service.ingests.taking_in import TakingIn
from ingest_service.ingests.uploads import Uploads
from ingest_service.ingests.verify import Verifications
from ingest_service.ingests.verify_rounds import VerifyRounds, VerifySettings
from ingest_service.process import StartError, cannot_listen, check_addresses
from ingest_service.rpc.catalog_servicer import CatalogServicer
from ingest_service.rpc.ingest_servicer import IngestServicer
from ingest_service.rpc.server import RpcServer
from ingest_service.storage import (
    ImportFolder,
    Sha256,
)
from ingest_service.storage.identity import read_store_id
from ingest_service.store_opening import OpenedStore
from ingest_service.telemetry.loop_monitor import LoopMonitor
from ingest_service.telemetry.metrics import ServiceCollector, registry_of
from ingest_service.telemetry.metrics_server import MetricsServer
from ingest_service.vocabulary.errors import DatabaseDown, IngestError
from ingest_service.workers import WorkerSide, let_stop_signals_in

_log = logging.getLogger(__name__)
#: After the grace, uploads that were ended have this long to be left in good order.
_CLEAN_UP_SECONDS = 8.0
#: For sizes and free room, which the kernel mostly knows without asking the disk.
_LOOKER_THREADS = 2


def now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


def new_id() -> str:
    """A random id of lower-case hex digits."""
    return secrets.token_hex(12)


class Service:
    """One process of the service: `start`, then `stop`. Used by the `serve` command and by tests."""

    def __init__(self, settings: Settings, *, shares_port: bool = False) -> None:
        self._settings = settings
        self._shares_port = shares_port
        self.limits = Limits(
            max_file_bytes=settings.max_file_bytes,
            window_bytes=settings.window_bytes,
            total_window_bytes=settings.total_window_bytes,
            checkpoint_bytes=settings.checkpoint_bytes,
            checkpoint_seconds=settings.checkpoint_seconds,
            idle_seconds=settings.upload_idle_seconds,
            min_bytes_per_minute=settings.upload_min_bytes_per_minute,
            max_uploads=settings.max_uploads,
            free_floor_bytes=settings.free_floor_bytes,
            require_digest=settings.require_digest,
            allow_from=settings.allow_from,
            allow_safetensors=settings.allow_safetensors,
        )
        self.loop_monitor = LoopMonitor(settings.stall_seconds)
        self.opened = OpenedStore(settings, new_id)
        self.executor = self.opened.executor
        self.database = self.opened.database
        self.store = self.opened.blobs
        self.quarantine = self.opened.quarantine
        self.hub = Hub()
        self.database.on_event(self.hub.wake)
        target_names = [target.name for target in settings.targets]
        format_limits = _format_limits(settings)
        self.vetting = Vetting(self.database, self.store, self.executor, format_limits)
        self.taking_back = TakingBack(
            self.database, self.store, self.quarantine, self.executor, format_limits, clock=now
        )
        self.ingests = Ingests(
            self.database,
            self.store,
            self.vetting,
            self.limits,
            target_names,
            clock=now,
            new_id=new_id,
            taking_back=self.taking_back,
        )
        self.deploying = Deploying(
            self.database, self.store, self.vetting, self.limits, target_names, clock=now, new_id=new_id
        )

        def new_inspector(name: str, size_bytes: int) -> Inspector:
            return Inspector(name, size_bytes, format_limits, self.executor)

        self._new_inspector = new_inspector
        self.uploads = Uploads(
            self.database,
            self.store,
            self.limits,
            clock=now,
            new_hasher=lambda: Sha256(self.executor),
            new_inspector=new_inspector,
        )
        self.uploads.on_stored(self.taking_back.stored)
        import_folder = ImportFolder(settings.data_dir, self.executor)
        self.imports = Imports(
            self.store,
            import_folder,
            self.ingests,
            TakingIn(self.database, self.store, import_folder, self.uploads, self.limits, clock=now),
            self.limits,
            new_inspector=new_inspector,
        )
        self.import_boot = ImportBoot(import_folder, self.imports, self.ingests)
        self.ingests.on_cancel(self.uploads.cancelled)
        self.watches = Watches(
            self.database, self.hub, max_watches=settings.max_watches, watch_seconds=settings.watch_seconds
        )
        self.hints = hints_of(self.database, self._hinted)
        targets = [
            Target(target.name, target.url, target.headers, target.models_dir, target.ca)
            for target in settings.targets
        ]
        self.board = TargetBoard(targets, clock=now)
        self.removal = Removal(
            self.database,
            self.store,
            TargetRemoval(self.database, targets, lease_seconds=settings.lease_seconds, new_id=new_id),
            clock=now,
        )
        self.beside: CutThrough | None = None
        if settings.cut_through:
            self.beside = CutThrough(
                self.database,
                self.store,
                targets,
                self.uploads.session_of,
                lease_seconds=settings.lease_seconds,
                owner=new_id(),
                clock=now,
            )
            self.uploads.on_open(self.beside.begun)
        self.worker = Worker(
            self.database,
            self.store,
            self.hub,
            targets,
            ForwardingSettings(
                retry_seconds=settings.deployment_retry_seconds,
                create_seconds=settings.create_seconds,
                lease_seconds=settings.lease_seconds,
                max_concurrent=settings.max_deployments,
            ),
            owner=new_id(),
            clock=now,
            vetting=self.vetting,
            beside=self.beside,
        )
        self.recovery = Recovery(self.database, self.store, self.vetting, clock=now)
        self.sweeper = Sweeper(
            self.database,
            self.store,
            self.recovery,
            SweepSettings(
                period_seconds=settings.sweep_seconds,
                upload_expiry_seconds=settings.upload_expiry_seconds,
                blob_grace_seconds=settings.blob_grace_seconds,
            ),
            owner=new_id(),
            clock=now,
        )
        self.rehasher = Rehasher(self.database, self.opened.scanner, clock=now)
        self.verifications = Verifications(
            self.ingests.model,
            self.rehasher,
            TargetPresence(targets),
            LostModels(self.database, clock=now),
        )
        self.verify_rounds = VerifyRounds(
            self.database,
            self.rehasher,
            VerifySettings(
                age_seconds=settings.verify_days * 86400.0, bytes_per_second=settings.verify_bytes_per_second
            ),
            owner=new_id(),
            clock=now,
        )
        version = distribution_version("model-ingest-service")
        self.rpc = RpcServer(
            IngestServicer(
                self.ingests,
                self.uploads,
                self.watches,
                self.limits,
                target_names,
                version=version,
                clock=now,
            ),
            CatalogServicer(
                self.ingests,
                self.board,
                imports=self.imports,
                verifications=self.verifications,
                removal=self.removal,
                deploying=self.deploying,
            ),
            shares_port=shares_port,
            call_window_bytes=settings.call_window_bytes,
        )
        self.readiness = Readiness(
            self.database, self.store, self.rpc.set_serving, period_seconds=settings.readiness_seconds
        )
        self.port = 0
        self.metrics = MetricsServer(
            registry_of(
                ServiceCollector(
                    loop_lag=lambda: self.loop_monitor.lag,
                    uploads_active=lambda: self.uploads.active,
                    window_held_bytes=lambda: self.uploads.held_bytes,
                    version=version,
                )
            )
        )
        #: 0 if there are none.
        self.metrics_port = 0

    async def start(self, *, is_prepared: bool = False) -> None:
        """Checks and puts right, then SERVING. Raises StartError, before a log line if a setting is wrong.

        `is_prepared`: `prepare` has just put right what a crash left.
        """
        await asyncio.to_thread(check_addresses, self._addresses())
        store_id = await self.opened.open()
        _log.info("starting", extra=self._settings.public())
        if not is_prepared:
            await self.recover()
        try:
            await self._log_contents(store_id)
        except DatabaseDown as error:
            raise await self.opened.no_database(error) from error
        await asyncio.to_thread(warm_up)
        # Not before: what blocks while it boots, migrations above all, keeps nobody waiting.
        self.loop_monitor.start()
        if self._settings.metrics_listen:
            await self._start_metrics(self._settings.metrics_listen)
        try:
            self.port = await self.rpc.start(self._settings.listen)
        except OSError as error:
            raise cannot_listen(self._settings.listen, error=error) from error
        self.hints.start()
        await self._log_sharing()
        self.worker.start()
        self.sweeper.start()
        self.verify_rounds.start()
        await self.readiness.start()
        self.import_boot.start(look_for_files=self._settings.import_at_boot)
        serving = "worker serving" if self._shares_port else "serving"
        _log.info(serving, extra={"listen": self._settings.listen, "port": self.port})

    def _addresses(self) -> list[tuple[str, str]]:
        """What this process alone listens on, each with its setting's name."""
        shared = [] if self._shares_port else [(self._settings.listen, "INGEST_LISTEN")]
        metrics = self._settings.metrics_listen
        return [*shared, (metrics, "INGEST_METRICS_LISTEN")] if metrics else shared

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Drains in order: not ready, no new calls, watches, uploads, worker, database, threads."""
        grace = self._settings.drain_seconds if grace_seconds is None else grace_seconds
        level = logging.INFO if self.port else logging.DEBUG
        _log.log(level, "draining", extra={"grace_seconds": grace, "uploads": self.uploads.active})
        await self.readiness.stop()
        # The server's own grace is longer: uploads are ended by us, with a reason, before it cancels them.
        stopping = asyncio.create_task(self.rpc.stop(grace + _CLEAN_UP_SECONDS))
        self.watches.drain()
        self.verifications.drain()
        # Before the uploads' grace: reading beside them would only make them slower.
        await self.verify_rounds.stop()
        await self.rehasher.close()
        # At once: unlike clients, the folder is still there after the next boot.
        await self.import_boot.stop()
        await self.imports.stop()
        await self.uploads.drain(grace)
        await stopping
        await self.uploads.close()
        await self.taking_back.close()
        await self.board.close()
        if self.beside is not None:
            await self.beside.close()
        await self.worker.stop()
        await self.sweeper.stop()
        await self.hints.stop()
        await self.opened.close()
        await asyncio.to_thread(self.metrics.stop)
        self.loop_monitor.stop()
        _log.log(level, "stopped")

    def rebuild(
        self, report: RebuildReport, tell: Callable[[Told], None], on_progress: Callable[[Progress], None]
    ) -> Rebuild:
        """Of the store that was opened `alone`."""
        return Rebuild(
            self.database, self.store, self.quarantine, self.ingests, self.executor,
            new_inspector=self._new_inspector, clock=now, report=report, tell=tell,
            on_progress=on_progress,
        )  # fmt: skip

    async def _start_metrics(self, listen: str) -> None:
        try:
            self.metrics_port = await asyncio.to_thread(self.metrics.start, listen)
        except OSError as error:
            raise cannot_listen(listen, "INGEST_METRICS_LISTEN", error) from error
        _log.info("metrics", extra={"listen": listen, "port": self.metrics_port})

    def _hinted(self, ingest_id: str | None) -> None:
        """Another process may have changed this ingest (None: any)."""
        if ingest_id is None:
            self.hub.wake_everybody()
        else:
            self.hub.wake(ingest_id)
        self.uploads.look(ingest_id)

    async def recover(self) -> None:
        """What a crash left is put right. Raises StartError."""
        await self.opened.recover(self.recovery)

    async def _log_sharing(self) -> None:
        """Whether targets really share their models directory, as far as can be seen from here."""
        for target in self._settings.targets:
            if target.models_dir is None:
                continue
            why_not = await self.store.why_not_placeable(target.models_dir / "blobs")
            extra = {"target": target.name, "models_dir": str(target.models_dir)}
            if why_not:
                _log.warning("a target gets its files over HTTP", extra={**extra, "detail": why_not})
            else:
                _log.info("a target gets its files without sending their bytes", extra=extra)

    async def _log_contents(self, store_id: str) -> None:
        models = await self.database.read(lambda tx: tx.models.count())
        blobs, size_bytes = await self.database.read(lambda tx: tx.blobs.totals())
        moving = await self.database.read(lambda tx: tx.deployments.moving_count())
        _log.info(
            "store opened",
            extra={
                "store_id": store_id,
                "models": models,
                "blobs": blobs,
                "blob_bytes": size_bytes,
                "free_bytes": await self.store.free_bytes(),
                "deployments_to_do": moving,
            },
        )


async def serve(settings: Settings, worker: WorkerSide | None = None, *, is_prepared: bool = False) -> None:
    """Runs the service until SIGTERM or SIGINT; a `worker` shares its port with others. Raises StartError."""
    service = Service(settings, shares_port=worker is not None)
    stop = asyncio.Event()
    _stop_by_signal(stop)
    if worker is not None:
        worker.watch(stop.set)
    try:
        if await _unless_stopped(service.start(is_prepared=is_prepared), stop):
            if worker is not None:
                worker.serving()
            await stop.wait()
    except BaseException:
        with contextlib.suppress(IngestError):
            await service.stop(0.0)
        raise
    await service.stop()


async def prepare(settings: Settings) -> None:
    """What is done once before several workers start: schema, the right store, what a crash left.

    A SIGTERM or SIGINT ends it between two steps; the next start goes on.
    """
    stop = asyncio.Event()
    _stop_by_signal(stop)
    let_stop_signals_in()
    service = Service(settings)

    async def prepared() -> None:
        await service.opened.open()
        await service.recover()

    try:
        await _unless_stopped(prepared(), stop)
    finally:
        await service.opened.close()


def _stop_by_signal(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def _unless_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Runs `work` to its end, or until `stop` is set; whether it came to its end. Raises what it raises."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        is_done = working.done()
        working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
    if is_done:
        working.result()
    return is_done


async def sweep_once(settings: Settings, *, dry_run: bool, beyond_brake: bool) -> SweepReport | None:
    """One sweep beside whatever else runs; None if another process is at it. Raises StartError."""
    if await asyncio.to_thread(read_store_id, settings.data_dir) is None:
        # A sweep makes nothing: in the wrong directory it would only say that there is nothing to do.
        raise StartError(
            f"INGEST_DATA_DIR {settings.data_dir} holds no store: give the sweep the settings of the service."
        )
    service = Service(settings)
    try:
        await service.opened.open()
        return await service.sweeper.run(dry_run=dry_run, beyond_brake=beyond_brake)
    finally:
        await service.opened.close()


def _format_limits(settings: Settings) -> FormatLimits:
    return FormatLimits(
        gguf=GgufLimits(
            allow_trailing_bytes=settings.allow_trailing_bytes,
            refuse_unsafe_templates=not settings.allow_unsafe_templates,
            rules_as_warnings=settings.rules_as_warnings,
        ),
        json=JsonLimits(refuse_unsafe_templates=not settings.allow_unsafe_templates),
    )
