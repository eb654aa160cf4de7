"""The domain's real parts in a process of their own, so that a crash is a real one: SIGKILL.

`Life` is the test's end: each question is answered before the next one is asked. `_Process` is the child's:
Upload calls stay open between questions, each in a task of its own, as the servicer has them.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Awaitable
from datetime import datetime, timedelta
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import google_crc32c

from ingest_service.app import new_id, now
from ingest_service.database import Database
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.recovery import Recovery
from ingest_service.ingests.requests import NewFile, NewIngest
from ingest_service.ingests.service import Ingests
from ingest_service.ingests.session import UploadSession
from ingest_service.ingests.sweep import Sweeper, SweepSettings
from ingest_service.ingests.uploads import Uploads
from ingest_service.storage import FileExecutor, LocalBlobStore, Sha256
from ingest_service.vocabulary.errors import Draining, IngestError
from ingest_service.vocabulary.states import FileRole
from tests.storage.descriptors import open_files
from tests.support.formats import inspectors, vetting

FILE_NAME = "model.gguf"
#: Only a process that is stuck needs so long for one answer.
_STUCK_SECONDS = 60.0
#: Small, so that a crash finds some of an upload's bytes committed and some not.
_LIMITS = Limits(checkpoint_bytes=12 * 1024, checkpoint_seconds=0.5, free_floor_bytes=0)
_context = multiprocessing.get_context("forkserver")
# A fork of a process that has imported everything takes milliseconds, a new interpreter seconds.
_context.set_forkserver_preload([__name__])


def start_fork_server() -> None:
    """It and its tracker of resources live until this process ends, whoever asks for the first fork."""
    resource_tracker.ensure_running()
    forkserver.ensure_running()


class Refused(Exception):
    """The service's error, as the test sees it."""

    def __init__(self, reason: str, metadata: dict[str, str]) -> None:
        super().__init__(reason, metadata)
        self.reason, self.metadata = reason, metadata


class Life:
    """One life of the service, from its boot to its end."""

    def __init__(self, directory: Path, days_later: float) -> None:
        self._mine, theirs = _context.Pipe()
        arguments = (theirs, directory, days_later)
        self._process: ForkServerProcess = _context.Process(target=_live, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def ask(self, question: str, *arguments: Any) -> Any:
        """The answer, or Refused."""
        self.tell(question, *arguments)
        return self._receive()

    def tell(self, question: str, *arguments: Any) -> None:
        """Asks and does not wait for the answer."""
        self._mine.send((question, arguments))

    def kill(self) -> None:
        """The process is gone between two of its instructions, whatever it was at."""
        if self._mine.closed:
            return
        self._process.kill()
        self._process.join(_STUCK_SECONDS)
        self._process.close()
        self._mine.close()

    def _receive(self) -> Any:
        assert self._mine.poll(_STUCK_SECONDS), "the service does not answer"
        answer = self._mine.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _live(connection: Connection, directory: Path, days_later: float) -> None:
    asyncio.run(_Process(connection, directory, days_later).run())


class _Call:
    """One Upload call: takes a step at a time, ends by a step, by its client or by an interruption."""

    def __init__(self, uploads: Uploads, ingest_id: str) -> None:
        self._uploads = uploads
        self._steps: asyncio.Queue[tuple[str, tuple[Any, ...], asyncio.Future[str]] | None] = asyncio.Queue()
        self.opened: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run(ingest_id))

    async def _run(self, ingest_id: str) -> str:
        async with self._uploads.receive(ingest_id, FILE_NAME) as upload:
            session = upload if isinstance(upload, UploadSession) else None
            self.opened.set_result("session" if session else "stored already")
            if session:
                session.on_interrupt(lambda: self._steps.put_nowait(None))
            while session is None or session.interruption is None:
                step = await self._steps.get()
                if step is None:
                    continue
                name, arguments, done = step
                if name == "finish":
                    return str((await self._uploads.finish(upload, *arguments)).state)
                if name == "half_close":
                    return "half-closed"
                if session:
                    await session.chunk(*arguments)
                done.set_result("taken")
            raise session.interruption

    async def step(self, name: str, *arguments: Any) -> str:
        """What came of it: "taken", or how the call ended."""
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._steps.put_nowait((name, arguments, done))
        await asyncio.wait({self.task, done}, return_when=asyncio.FIRST_COMPLETED)
        return self.task.result() if self.task.done() else done.result()


class _Process:
    """Answers one question after the other."""

    def __init__(self, connection: Connection, directory: Path, days_later: float) -> None:
        self._connection = connection
        self._data_dir = directory / "data"
        self._days_later = days_later
        self._executor = FileExecutor(4)
        self._database = Database(f"sqlite+aiosqlite:///{directory / 'test.db'}")
        store = LocalBlobStore(self._data_dir, self._executor)
        self._store = store
        self._vetting = vetting(self._database, store, self._executor)
        self._ingests = Ingests(
            self._database, store, self._vetting, _LIMITS, [], clock=self._now, new_id=new_id
        )
        self._uploads = Uploads(
            self._database,
            store,
            _LIMITS,
            clock=self._now,
            new_hasher=lambda: Sha256(self._executor),
            new_inspector=inspectors(self._executor),
        )
        self._ingests.on_cancel(self._uploads.cancelled)
        self._recovery = Recovery(self._database, store, self._vetting, clock=self._now)
        self._sweeper = Sweeper(
            self._database, store, self._recovery, SweepSettings(), owner=new_id(), clock=self._now
        )
        self._calls: dict[int, _Call] = {}

    def _now(self) -> datetime:
        return now() + timedelta(days=self._days_later)

    async def run(self) -> None:
        questions: asyncio.Queue[tuple[str, tuple[Any, ...]]] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(
            self._connection.fileno(), lambda: questions.put_nowait(self._connection.recv())
        )
        await self._store.prepare()
        await self._recovery.at_boot()
        self._connection.send("serving")
        while True:
            question, arguments = await questions.get()
            work: Awaitable[Any] = getattr(self, question)(*arguments)
            try:
                answer = await work
            except IngestError as error:
                answer = Refused(str(error.reason), dict(error.metadata))
            except Exception as error:  # noqa: BLE001 (the test is to fail with it)
                answer = AssertionError(f"{question}: {error!r}")
            self._connection.send(answer)

    async def create(self, model: str, size_bytes: int, sha256: str, request_id: str) -> tuple[str, str]:
        file = NewFile(FILE_NAME, FileRole.MODEL, size_bytes, sha256)
        ingest = await self._ingests.create(NewIngest(model=model, files=(file,), request_id=request_id))
        return ingest.id, ingest.files[0].id

    async def look(self) -> dict[str, tuple[str, str, int, str]]:
        """Of every ingest: its state and its file's, committed size, digest."""
        ingests, _ = await self._ingests.page(model="", states=(), before_number=None, limit=100)
        pairs = ((ingest, ingest.files[0]) for ingest in ingests)
        return {
            ingest.id: (str(ingest.state), str(file.state), file.committed_size, file.sha256 or "")
            for ingest, file in pairs
        }

    async def sequences(self, ingest_id: str) -> list[int]:
        events = await self._database.read(lambda tx: tx.events.after(ingest_id, 0, 10_000))
        assert len(events) == (await self._ingests.get(ingest_id)).last_sequence
        return [event.sequence for event in events]

    async def open(self, number: int, ingest_id: str) -> str:
        call = self._calls[number] = _Call(self._uploads, ingest_id)
        await asyncio.wait({call.task, call.opened}, return_when=asyncio.FIRST_COMPLETED)
        return call.opened.result() if call.opened.done() else await self._over(call)

    async def chunk(self, number: int, offset: int, data: bytes, *, harm_crc: bool = False) -> str:
        crc32c = google_crc32c.value(data) ^ int(harm_crc)
        return await self._step(number, "chunk", offset, data, crc32c)

    async def harmed(self, number: int, offset: int, data: bytes) -> str:
        return await self.chunk(number, offset, data, harm_crc=True)

    async def half_close(self, number: int) -> str:
        return await self._step(number, "half_close")

    async def finish(self, number: int, sha256: str) -> str:
        return await self._step(number, "finish", sha256)

    async def vanish(self, number: int) -> None:
        """The client is gone: grpc.aio cancels the servicer's task."""
        call = self._calls[number]
        call.task.cancel()
        await asyncio.wait({call.task})
        assert call.task.cancelled()
        await self._quiet()

    async def outcome(self, number: int) -> str:
        """How a call ended that has to end by itself."""
        return await self._over(self._calls[number])

    async def cancel(self, ingest_id: str) -> None:
        await self._ingests.cancel(ingest_id)

    async def sweep(self, days_later: float) -> list[str]:
        self._days_later = days_later
        report = await self._sweeper.run()
        assert report is not None
        return report.expired_ingests

    async def stop(self) -> tuple[list[str], int, int, list[str]]:
        """A stop in good order: what the calls ended with, and what is left of tasks, bytes and files."""
        await self._uploads.drain(0.0)
        ends = await asyncio.gather(*(call.task for call in self._calls.values()), return_exceptions=True)
        await self._uploads.close()
        await self._database.close()
        self._executor.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        drained = [str(end.reason) for end in ends if isinstance(end, Draining)]
        return drained, len(tasks), self._uploads.held_bytes, open_files(self._data_dir)

    async def _step(self, number: int, name: str, *arguments: Any) -> str:
        call = self._calls[number]
        what = await asyncio.gather(call.step(name, *arguments), return_exceptions=True)
        if call.task.done():
            return await self._over(call)
        assert isinstance(what[0], str), what
        return what[0]

    async def _over(self, call: _Call) -> str:
        await asyncio.wait({call.task})
        await self._quiet()
        return call.task.result()

    async def _quiet(self) -> None:
        """What an ended call left to be done is done."""
        while self._uploads._background:
            await asyncio.wait(set(self._uploads._background))
