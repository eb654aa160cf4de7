"""A worker's world without its gRPC edge: a real database, a real store, emulated targets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ingest_service.database import Database, Lease
from ingest_service.events import Hub
from ingest_service.events.hub import wait_for_flag
from ingest_service.formats import format_for
from ingest_service.forwarding import ForwardingSettings, Target, Worker
from ingest_service.forwarding.moves import DeploymentMoves
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.requests import NewFile, NewIngest
from ingest_service.ingests.service import Ingests
from ingest_service.storage import FileExecutor, LocalBlobStore
from ingest_service.vocabulary.records import Deployment, Event, Ingest
from ingest_service.vocabulary.states import FileRole
from tests.ollama_emulator import OllamaEmulator
from tests.support.files import digest
from tests.support.formats import ACCEPTED, vetting

BOUND_SECONDS = 30.0
SHORT = {"blob_head": "head", "blob_post": "post"}


def now() -> datetime:
    return datetime.now(UTC)


class World:
    """Makes stored ingests, runs workers on them, and tells what became of both."""

    def __init__(
        self,
        database: Database,
        store: LocalBlobStore,
        executor: FileExecutor,
        blobs: Path,
        targets: list[Target],
    ) -> None:
        self.database = database
        self.store = store
        self.vetting = vetting(database, store, executor)
        self.blobs = blobs
        self.targets = targets
        self.hub = Hub()
        database.on_event(self.hub.wake)
        self._ids = (f"{number:024x}" for number in itertools.count(1))
        self._workers: list[Worker] = []
        self._know_targets()

    def add_target(self, target: Target) -> None:
        """One more, for workers that are made later."""
        self.targets.append(target)
        self._know_targets()

    def _know_targets(self) -> None:
        names = [target.name for target in self.targets]
        limits = Limits(allow_from=True, allow_safetensors=True)
        self.ingests = Ingests(
            self.database, self.store, self.vetting, limits, names, clock=now, new_id=lambda: next(self._ids)
        )

    async def stored(self, data: bytes, model: str = "m", targets: Iterable[str] = ()) -> str:
        """An ingest whose bytes are stored, so that its deployments are due; answers its id."""
        return await self.stored_set(
            [("their-name.gguf", FileRole.MODEL, data)], model=model, targets=tuple(targets)
        )

    async def stored_set(
        self, files: Iterable[tuple[str, FileRole, bytes]], *, model: str = "m", **request: Any
    ) -> str:
        """The same of several files (name, role, bytes), with options perhaps."""
        new = [
            NewFile(name, role, len(data), await self._keep(data, format_for(name)))
            for name, role, data in files
        ]
        return (await self.ingests.create(NewIngest(model, new, **request))).id

    async def _keep(self, data: bytes, file_format: str) -> str:
        sha256 = digest(data)
        if await self.store.blob_size_bytes(sha256) is None:
            partial = await self.store.create_partial(next(self._ids))
            await partial.write(0, [data])
            await partial.sync()
            await partial.close()
            await self.store.publish(partial.partial_id, sha256)
        inspection = replace(ACCEPTED, format=file_format)
        await self.database.transact(lambda tx: tx.blobs.make_live(sha256, len(data), inspection, now()))
        return sha256

    def blob_path(self, data: bytes) -> Path:
        return self.blobs / digest(data).replace(":", "-")

    def worker(
        self, *, owner: str = "worker", targets: list[Target] | None = None, **settings: Any
    ) -> Worker:
        """A started worker with short times; it is stopped with the world."""
        fast: dict[str, Any] = {
            "poll_seconds": 0.05,
            "first_backoff_seconds": 0.01,
            "max_backoff_seconds": 0.05,
        }
        worker = Worker(
            self.database,
            self.store,
            self.hub,
            self.targets if targets is None else targets,
            ForwardingSettings(**(fast | settings)),
            owner=owner,
            clock=now,
            vetting=self.vetting,
        )
        worker.start()
        self._workers.append(worker)
        return worker

    async def ingest(self, ingest_id: str) -> Ingest:
        return await self.ingests.get(ingest_id)

    async def deployment(self, ingest_id: str) -> Deployment:
        return (await self.ingest(ingest_id)).deployments[0]

    async def until(self, ingest_id: str, condition: Any, seconds: float = BOUND_SECONDS) -> Ingest:
        """Waits until the ingest is as wanted."""
        with self.hub.waiting_for(ingest_id) as flag:
            async with asyncio.timeout(seconds):
                while not condition(ingest := await self.ingest(ingest_id)):
                    await wait_for_flag(flag, 0.05)
                    flag.clear()
        return ingest

    async def done(self, ingest_id: str) -> Ingest:
        return await self.until(ingest_id, lambda ingest: ingest.done)

    async def forwarded(self, data: bytes, model: str = "m", **settings: Any) -> Ingest:
        """A stored ingest, driven to its end by one worker."""
        ingest_id = await self.stored(data, model)
        self.worker(**settings)
        return await self.done(ingest_id)

    async def events(self, ingest_id: str) -> list[Event]:
        events = await self.database.read(lambda tx: tx.events.after(ingest_id, 0, 5000))
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        return events

    async def states(self, ingest_id: str, target: str | None = None) -> str:
        """The states that the deployment's events tell, in order."""
        return " ".join(
            event.body["state"]
            for event in await self.events(ingest_id)
            if event.kind == "deployment_state" and target in (None, event.body["target"])
        )

    async def retry_words(self, ingest_id: str) -> list[str]:
        """Why each attempt that is to be repeated failed."""
        events = [event.body for event in await self.events(ingest_id) if event.kind == "deployment_state"]
        return [body["failure"]["message"] for body in events if body["state"] == "PENDING"]

    async def statuses(self, ingest_id: str) -> list[str]:
        events = await self.events(ingest_id)
        return [event.body["status"] for event in events if event.kind == "deployment_status"]

    async def claim(self, owner: str, lease_seconds: float = 60.0, busy: Iterable[str] = ()) -> Lease | None:
        names = [target.name for target in self.targets]
        return await self.database.transact(
            lambda tx: tx.deployments.claim(owner, names, list(busy), lease_seconds)
        )

    def moves(self, lease: Lease) -> DeploymentMoves:
        return DeploymentMoves(self.database, lease, now)

    async def close(self) -> None:
        for worker in self._workers:
            await worker.stop()


def calls(emulator: OllamaEmulator) -> str:
    """The calls a target got, in order."""
    return " ".join(SHORT.get(name, name) for name in emulator.calls.names())


@contextlib.asynccontextmanager
async def open_world(database: Database, directory: Path, *emulators: OllamaEmulator) -> AsyncIterator[World]:
    """A world with one target for each emulator, named a, b, c..."""
    executor = FileExecutor(4)
    directory.mkdir(exist_ok=True)
    store = LocalBlobStore(directory, executor)
    await store.prepare()
    targets = [Target(chr(ord("a") + index), emulator.url) for index, emulator in enumerate(emulators)]
    world = World(database, store, executor, directory / "blobs", targets)
    try:
        yield world
    finally:
        await world.close()
        executor.close()
        left = [task for task in asyncio.all_tasks() if "ingest_service" in repr(task.get_coro())]
        assert not left, f"tasks left behind: {left}"
