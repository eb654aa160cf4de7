"""Fifty of everything at once, as one process of the service would do it; run as a program, a second process.

`python -m tests.database.load URL DIRECTORY` says "ready", waits for a line, and answers a report as JSON.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import event

from ingest_service.database import Database, Transaction
from ingest_service.ingests.file_moves import FileMoves
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.requests import NewFile, NewIngest
from ingest_service.ingests.service import Ingests
from ingest_service.lifecycle import Change
from ingest_service.storage import FileExecutor, LocalBlobStore
from ingest_service.vocabulary.errors import UploadClosed, WriterBusy, WriterSuperseded
from ingest_service.vocabulary.records import File
from ingest_service.vocabulary.states import FileRole, FileState
from tests.support.formats import ACCEPTED, vetting

COUNT = 16
SIZE = 1000
STEPS = 4
READS = 6
HOT = "hot"


@dataclass
class Report:
    """What one process saw and was told."""

    ids: dict[str, str] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    notices: int = 0
    reads: int = 0
    statements: int = 0
    faults: list[str] = field(default_factory=list)


@contextmanager
def watched(database: Database, report: Report) -> Iterator[None]:
    """Notes every statement that runs in another task than the one that took its connection."""
    owners: dict[int, asyncio.Task[Any] | None] = {}
    engine = database.engine.sync_engine

    def taken(connection: Any, *_: Any) -> None:
        if id(connection) in owners:
            report.faults.append("a connection was taken twice")
        owners[id(connection)] = asyncio.current_task()

    def given_back(connection: Any, *_: Any) -> None:
        owners.pop(id(connection), None)

    def ran(connection: Any, *_: Any) -> None:
        report.statements += 1
        owner = owners.get(id(connection.connection.dbapi_connection))
        if owner is None or owner is not asyncio.current_task():
            report.faults.append("a statement ran on a connection of another task")

    listeners = (
        (engine.pool, "checkout", taken),
        (engine.pool, "checkin", given_back),
        (engine, "before_cursor_execute", ran),
    )
    for target, name, listener in listeners:
        event.listen(target, name, listener)
    try:
        yield
    finally:
        for target, name, listener in listeners:
            event.remove(target, name, listener)


class Load:
    """The calls of one process."""

    def __init__(self, database: Database, directory: Path, executor: FileExecutor) -> None:
        self.report = Report()
        self._database = database
        store = LocalBlobStore(directory, executor)
        self._ingests = Ingests(
            database,
            store,
            vetting(database, store, executor),
            Limits(),
            ("a", "b"),
            clock=self._now,
            new_id=lambda: secrets.token_hex(12),
        )
        self._moves = FileMoves(database, self._now)

    @staticmethod
    def _now() -> datetime:
        return datetime.now(UTC)

    async def run(self) -> Report:
        """Everything at once."""
        with watched(self._database, self.report):
            hot = await self._create(HOT)
            async with asyncio.TaskGroup() as tasks:
                for index in range(COUNT):
                    tasks.create_task(self._one(index))
                    tasks.create_task(self._notice(hot))
        return self.report

    async def _create(self, name: str) -> str:
        """Under a request_id that the other process uses too: whoever comes second gets the same ingest."""
        file = NewFile("model.gguf", FileRole.MODEL, SIZE)
        ingest = await self._ingests.create(NewIngest(model=name, files=[file], request_id=name))
        self.report.ids[name] = ingest.id
        return ingest.id

    async def _one(self, index: int) -> None:
        ingest_id = await self._create(f"m{index}")
        finished = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read(ingest_id, finished))
            uploading = tasks.create_task(self._upload(ingest_id, f"sha256:{index % 7:064x}"))
            if index % 3 == 0:
                tasks.create_task(self._cancel(ingest_id, after=index % 5))
            await asyncio.wait({uploading})
            finished.set()

    async def _upload(self, ingest_id: str, sha256: str) -> None:
        try:
            _, file = await self._moves.begin(ingest_id, "model.gguf")
            if file.state is not FileState.UPLOADING:
                return
            await self._send(file, sha256)
        except (UploadClosed, WriterBusy, WriterSuperseded):
            return

    async def _send(self, file: File, sha256: str) -> None:
        for step in range(1, STEPS + 1):
            size = SIZE * step // STEPS
            await self._moves.checkpoint(file, size)
            self.report.acknowledged[file.ingest_id] = size
        await self._moves.move(file, FileState.VERIFYING)
        await self._moves.move(file, FileState.PUBLISHING, sha256=sha256, committed_size=SIZE)
        stored = await self._moves.stored(file, ACCEPTED)
        assert stored.state is FileState.STORED
        self.report.stored.append(file.ingest_id)

    async def _cancel(self, ingest_id: str, after: int) -> None:
        for _ in range(after):
            await self._ingests.get(ingest_id)
        await self._ingests.cancel(ingest_id)
        self.report.cancelled.append(ingest_id)

    async def _read(self, ingest_id: str, finished: asyncio.Event) -> None:
        committed = sequence = 0
        for left in reversed(range(READS)):
            if left == 0:
                await finished.wait()
            ingest = await self._ingests.get(ingest_id)
            self.report.reads += 1
            if ingest.files[0].committed_size < committed or ingest.last_sequence < sequence:
                self.report.faults.append(f"{ingest_id} went back")
            committed, sequence = ingest.files[0].committed_size, ingest.last_sequence

    async def _notice(self, ingest_id: str) -> None:
        async def work(tx: Transaction) -> None:
            before = await tx.ingests.lock(ingest_id)
            assert before is not None
            change = Change(before, self._now())
            change.notice("counted")
            await tx.ingests.save(before, change.after, change.events, change.now)

        await self._database.transact(work)
        self.report.notices += 1


async def _main(url: str, directory: str) -> None:
    executor = FileExecutor(2)
    database = Database(url)
    try:
        await database.read(lambda tx: tx.models.count())
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        report = await Load(database, Path(directory), executor).run()
        sys.stdout.write(json.dumps(asdict(report)))
    finally:
        await database.close()
        executor.close()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
