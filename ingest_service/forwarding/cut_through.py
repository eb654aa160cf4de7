"""Sends a file on to its targets while it is still arriving (design.md, issue 4 item 6).

Fed from the file behind the written position, never from the upload's queue: a target that is slow, or stands
still, holds up nobody but itself. The last MiB is withheld until our own size and digest are right and the
blob is published, because Ollama keeps the bytes of a mismatch under their true digest; whatever goes wrong
before that closes the connection short, and Ollama drops what it got. Create waits for STORED all the same:
the deployment's worker finds the blob there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Protocol

from ingest_service.database import Database, Transaction
from ingest_service.forwarding.eras import unsupported
from ingest_service.forwarding.ollama import OllamaClient
from ingest_service.forwarding.target import Target, TargetError
from ingest_service.lifecycle import Change
from ingest_service.storage import BlobReader, BlobStore
from ingest_service.vocabulary.errors import IngestError
from ingest_service.vocabulary.records import File, Ingest
from ingest_service.vocabulary.states import DeploymentState, FileState

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 2 * 1024 * 1024
_WITHHELD_BYTES = 1024 * 1024
#: A smaller file is sent in no time once it is stored.
_LEAST_BYTES = 8 * 1024 * 1024
_POLL_SECONDS = 0.1
_ROW_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0
_REMEMBERED = 256


class Arriving(Protocol):
    """An upload that is open in this process."""

    @property
    def readable_bytes(self) -> int:
        """So much may be read from the partial; 0 while the file's header is not accepted."""
        ...


class _Dropped(Exception):
    """The upload failed, stood still or began anew elsewhere."""


class CutThrough:
    """The pushes of this process that run beside uploads; one at a time for each target."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        targets: Iterable[Target],
        arriving: Callable[[str], Arriving | None],
        *,
        lease_seconds: float,
        owner: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._hold = _Hold(database, lease_seconds, owner, clock)
        # One that shares its models directory gets the file without sending it.
        self._targets = {target.name: target for target in targets if target.models_dir is None}
        self._arriving = arriving
        self._running: dict[str, _Push] = {}
        self._brought: OrderedDict[tuple[str, str], None] = OrderedDict()

    def begun(self, ingest: Ingest, file: File) -> None:
        """An upload was opened: what of its targets can be served at once, is."""
        if file.declared_sha256 is None or file.size_bytes < _LEAST_BYTES:
            return
        for deployment in ingest.deployments:
            target = self._targets.get(deployment.target)
            if target is None:
                continue
            running = self._running.get(target.name)
            if running is not None:
                running.taken_up(file)
            elif deployment.state is DeploymentState.PENDING:
                push = _Push(
                    target,
                    ingest,
                    file,
                    database=self._database,
                    store=self._store,
                    arriving=self._arriving,
                    hold=self._hold,
                )
                self._running[target.name] = push
                push.task.add_done_callback(partial(self._ended, target.name))

    def brought(self, target: str, file_id: str) -> bool:
        """This process brought that file there; forgotten after a while."""
        return (target, file_id) in self._brought

    def _ended(self, target: str, _task: asyncio.Task[None]) -> None:
        push = self._running.pop(target)
        if push.succeeded:
            self._brought[target, push.file.id] = None
            if len(self._brought) > _REMEMBERED:
                self._brought.popitem(last=False)

    async def close(self) -> None:
        """Ends every push short."""
        tasks = [push.task for push in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Hold:
    """Keeps the workers of all processes off a deployment while its file is sent on, or they would too."""

    def __init__(
        self, database: Database, lease_seconds: float, owner: str, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._owner = owner
        self._clock = clock

    async def keep(self, ingest_id: str, target: str, until: asyncio.Event) -> None:
        """Ends between two transactions: one that is cancelled would still commit, after the end."""
        while not until.is_set():
            with suppress(IngestError):
                await self._database.transact(
                    lambda tx: tx.deployments.hold(ingest_id, target, self._owner, self._lease_seconds)
                )
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lease_seconds / 3):
                    await until.wait()

    async def end(self, ingest_id: str, target: str, words: str) -> None:
        """Lets go; `words`, if any, are told in the same transaction, which wakes the workers."""

        async def work(tx: Transaction) -> None:
            before = await tx.ingests.lock(ingest_id)
            if words and before is not None and not before.done:
                change = Change(before, self._clock())
                change.notice(words)
                await tx.ingests.save(before, change.after, change.events, change.now)
            await tx.deployments.let_go(ingest_id, target, self._owner)

        with suppress(IngestError):
            await self._database.transact(work)


class _Push:
    """One file on its way to one target."""

    def __init__(
        self,
        target: Target,
        ingest: Ingest,
        file: File,
        *,
        database: Database,
        store: BlobStore,
        arriving: Callable[[str], Arriving | None],
        hold: _Hold,
    ) -> None:
        self.file = file
        self.sent_bytes = 0
        self.succeeded = False
        self._target = target
        self._ingest = ingest
        self._database = database
        self._store = store
        self._arriving = arriving
        self._hold = hold
        self._epoch = file.writer_epoch
        self._is_stored = self._is_lost = False
        self.task = asyncio.create_task(self._run())

    def taken_up(self, file: File) -> None:
        """An upload was opened, perhaps of our file. Called before it can have received a byte."""
        if file.id != self.file.id:
            return
        # What the former writer wrote behind its last checkpoint was cut off, and may come back other. One
        # in another process may have cut here, and gone on, without our knowing where.
        was_unseen = file.writer_epoch != self._epoch + 1 and self.sent_bytes > 0
        self._is_lost |= was_unseen or self.sent_bytes > file.committed_size
        self._epoch = file.writer_epoch

    async def _run(self) -> None:
        ingest_id, target = self.file.ingest_id, self._target.name
        ended = asyncio.Event()
        holding = asyncio.create_task(self._hold.keep(ingest_id, target, ended))
        try:
            await self._send()
        finally:
            ended.set()
            await asyncio.gather(holding, return_exceptions=True)
            words = f"{self.file.file_name} was sent on to {target} while it arrived."
            await self._hold.end(ingest_id, target, words if self.succeeded else "")

    async def _send(self) -> None:
        sha256 = self.file.declared_sha256
        assert sha256 is not None
        extra = {"ingest": self.file.ingest_id, "target": self._target.name}
        try:
            # Opened first: it is the same file still when it has been published meanwhile.
            async with self._store.read_partial(self.file.id) as reader:
                # Of a file whose header is refused no target hears anything.
                await self._readable()
                async with OllamaClient(self._target) as client:
                    if unsupported(await client.version(), self._ingest) or self._ingest.options.get("from"):
                        return  # the deployment's worker says so, or asks first
                    if await client.has_blob(sha256):
                        return
                    await client.push_body(sha256, self.file.size_bytes, self._body(reader))
            self.succeeded = True
            _log.info("sent a file on while it arrived", extra=extra)
        except (TargetError, IngestError, _Dropped) as error:
            # The deployment's own push comes once the file is stored.
            _log.info("a push beside the upload was given up", extra={**extra, "detail": str(error)})
        except Exception:  # noqa: BLE001 (logged)
            _log.exception("unforeseen fault in a push beside the upload", extra=extra)

    async def _body(self, reader: BlobReader) -> AsyncGenerator[bytes, None]:
        while self.sent_bytes < self.file.size_bytes:
            size_bytes = min(_CHUNK_BYTES, await self._readable() - self.sent_bytes)
            epoch = self._epoch
            data = await reader.read(self.sent_bytes, size_bytes)
            if epoch != self._epoch:
                continue  # read while the file was cut: read again
            if not data:
                raise _Dropped("the file is shorter than it was")
            self.sent_bytes += len(data)
            yield data

    async def _readable(self) -> int:
        """Waits until more may be read than was sent; answers up to where. Raises _Dropped."""
        loop = asyncio.get_running_loop()
        began, looked = loop.time(), 0.0
        while (allowed := self._readable_bytes()) <= self.sent_bytes:
            if loop.time() - began > _PATIENCE_SECONDS:
                raise _Dropped("the upload stands still")
            if loop.time() - looked >= _ROW_POLL_SECONDS:
                looked = loop.time()
                await self._look_at_row()
            else:
                await asyncio.sleep(_POLL_SECONDS)
        return allowed

    def _readable_bytes(self) -> int:
        if self._is_lost:
            raise _Dropped("the upload was taken up further back")
        if self._is_stored:
            return self.file.size_bytes
        upload = self._arriving(self.file.id)
        if upload is None:
            return 0
        return min(upload.readable_bytes, self.file.size_bytes - _WITHHELD_BYTES)

    async def _look_at_row(self) -> None:
        async def work(tx: Transaction) -> tuple[int, FileState] | None:
            return (await tx.files.writers([self.file.id])).get(self.file.id)

        found: tuple[int, FileState] | None = (self._epoch, FileState.UPLOADING)
        with suppress(IngestError):
            found = await self._database.read(work)
        if found is None or found[1] is FileState.FAILED:
            raise _Dropped("the upload failed")
        if found[1] is FileState.STORED and found[0] != self._epoch:
            # Finished by a writer that was not seen here: what was sent may not be what is stored.
            raise _Dropped("another writer finished the upload")
        # Only once it is STORED is it certain that these bytes are the ones that were declared.
        self._is_stored = found[1] is FileState.STORED
