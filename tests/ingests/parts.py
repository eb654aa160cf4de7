"""The domain's real parts, put together for tests, with the places where a fault can be put in.

Faults are hooks, awaited before the real call: one that raises is a fault, a `Gate` is a stall.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import google_crc32c

from ingest_service.database import Database, Transaction
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.pipeline import Hasher
from ingest_service.ingests.requests import NewFile, NewIngest
from ingest_service.ingests.service import Ingests
from ingest_service.ingests.session import UploadSession
from ingest_service.ingests.uploads import StoredAlready, Uploads
from ingest_service.storage import (
    BlobReader,
    BlobStore,
    FileExecutor,
    LocalBlobStore,
    PartialFile,
    PlacedBy,
    Sha256,
    SourceFile,
)
from ingest_service.storage.buffer import Buffer
from ingest_service.vocabulary.records import File, Ingest
from ingest_service.vocabulary.states import FileRole, FileState, IngestState
from tests.support.files import digest, gguf
from tests.support.formats import inspectors, vetting

_T = TypeVar("_T")
Hook = Callable[[], Awaitable[None]]
_ids = count(1)
KIBIBYTE = 1024


def new_id() -> str:
    return f"{next(_ids):024x}"


def clock() -> datetime:
    return datetime.now(UTC)


class Gate:
    """Stops whoever comes by until it is opened."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self.reached = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self._opened.wait()

    def open(self) -> None:
        self._opened.set()


def raising(error: Exception, *, times: int | None = None, after: int = 0) -> Hook:
    """Raises the error, `times` times (None: always), after the first `after` calls have passed."""
    calls = count()

    async def hook() -> None:
        number = next(calls)
        if number >= after and (times is None or number < after + times):
            raise error

    return hook


class Hooks:
    """What happens before each call, by the call's name, and how often each was made."""

    def __init__(self) -> None:
        self.before: dict[str, Hook] = {}
        self.before_any: Hook | None = None
        self.calls: defaultdict[str, int] = defaultdict(int)

    def clear(self) -> None:
        """No faults any more; who stands at a gate goes on."""
        gates = [hook for hook in (self.before_any, *self.before.values()) if isinstance(hook, Gate)]
        self.before_any = None
        self.before.clear()
        for gate in gates:
            gate.open()

    async def run(self, name: str) -> None:
        self.calls[name] += 1
        if self.before_any is not None:
            await self.before_any()
        if name in self.before:
            await self.before[name]()


class HookedPartial:
    """A real partial behind hooks."""

    def __init__(self, partial: PartialFile, hooks: Hooks) -> None:
        self._partial = partial
        self._hooks = hooks
        self.written_bytes = 0
        self.synced_bytes = 0

    @property
    def partial_id(self) -> str:
        return self._partial.partial_id

    @property
    def is_shared(self) -> bool:
        return self._partial.is_shared

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        await self._hooks.run("write")
        await self._partial.write(offset, buffers)
        self.written_bytes = offset + sum(map(len, buffers))

    async def read(self, offset: int, size_bytes: int) -> bytes:
        return await self._partial.read(offset, size_bytes)

    async def truncate(self, size_bytes: int) -> None:
        await self._hooks.run("truncate")
        await self._partial.truncate(size_bytes)

    async def remove(self) -> None:
        await self._hooks.run("remove")
        await self._partial.remove()

    async def sync(self) -> None:
        covered = self.written_bytes
        await self._hooks.run("sync")
        await self._partial.sync()
        self.synced_bytes = covered

    async def size_bytes(self) -> int:
        return await self._partial.size_bytes()

    async def close(self) -> None:
        await self._hooks.run("close")
        await self._partial.close()


class HookedStore:
    """A real store behind hooks."""

    def __init__(self, store: BlobStore, hooks: Hooks) -> None:
        self._store = store
        self._hooks = hooks

    async def create_partial(self, partial_id: str) -> PartialFile:
        await self._hooks.run("create_partial")
        return HookedPartial(await self._store.create_partial(partial_id), self._hooks)

    async def open_partial(self, partial_id: str) -> PartialFile | None:
        await self._hooks.run("open_partial")
        opened = await self._store.open_partial(partial_id)
        return None if opened is None else HookedPartial(opened, self._hooks)

    async def adopts(self, source: SourceFile) -> bool:
        return await self._store.adopts(source)

    async def adopt(self, partial_id: str, source: SourceFile) -> PartialFile | None:
        await self._hooks.run("adopt")
        adopted = await self._store.adopt(partial_id, source)
        return None if adopted is None else HookedPartial(adopted, self._hooks)

    def read_partial(self, partial_id: str) -> AbstractAsyncContextManager[BlobReader]:
        return self._store.read_partial(partial_id)

    async def remove_partial(self, partial_id: str) -> bool:
        await self._hooks.run("remove_partial")
        return await self._store.remove_partial(partial_id)

    async def partial_ids(self) -> list[str]:
        return await self._store.partial_ids()

    async def publish(self, partial_id: str, sha256: str) -> None:
        await self._hooks.run("publish")
        await self._store.publish(partial_id, sha256)

    async def blob_size_bytes(self, sha256: str) -> int | None:
        return await self._store.blob_size_bytes(sha256)

    def open_blob(self, sha256: str) -> AbstractAsyncContextManager[BlobReader]:
        return self._store.open_blob(sha256)

    async def why_not_placeable(self, directory: Path) -> str:
        return await self._store.why_not_placeable(directory)

    async def place_blob(self, sha256: str, directory: Path, on_progress: Callable[[int], None]) -> PlacedBy:
        return await self._store.place_blob(sha256, directory, on_progress)

    async def blob_digests(self) -> list[str]:
        return await self._store.blob_digests()

    async def remove_blob(self, sha256: str, unwanted: Callable[[], Awaitable[bool]]) -> bool:
        await self._hooks.run("remove_blob")
        return await self._store.remove_blob(sha256, unwanted)

    async def quarantine_blob(self, sha256: str, unknown: Callable[[], Awaitable[bool]]) -> str | None:
        return await self._store.quarantine_blob(sha256, unknown)

    async def probe(self) -> None:
        await self._hooks.run("probe")
        await self._store.probe()

    async def free_bytes(self) -> int:
        return await self._store.free_bytes()


class HookedHasher:
    """The real sha256 behind a hook."""

    def __init__(self, hasher: Sha256, hooks: Hooks) -> None:
        self._hasher = hasher
        self._hooks = hooks

    @property
    def hashed_bytes(self) -> int:
        return self._hasher.hashed_bytes

    async def update(self, buffers: Sequence[Buffer]) -> None:
        await self._hooks.run("hash")
        await self._hasher.update(buffers)

    async def settle(self) -> None:
        await self._hasher.settle()

    def digest(self) -> str:
        return self._hasher.digest()


class HookedDatabase(Database):
    """A real database behind hooks `transact` and `read`."""

    def __init__(self, url: str, hooks: Hooks) -> None:
        super().__init__(url)
        self._hooks = hooks

    async def transact(self, work: Callable[[Transaction], Awaitable[_T]]) -> _T:
        await self._hooks.run("transact")
        return await super().transact(work)

    async def read(self, work: Callable[[Transaction], Awaitable[_T]]) -> _T:
        await self._hooks.run("read")
        return await super().read(work)


class Parts:
    """Database, store and what the domain makes of them."""

    def __init__(
        self, database: HookedDatabase, hooks: Hooks, data_dir: Path, executor: FileExecutor
    ) -> None:
        self.database = database
        self.hooks = hooks
        self.data_dir = data_dir
        self.executor = executor
        self.local = LocalBlobStore(data_dir, executor)
        self.store = HookedStore(self.local, hooks)
        self.limits = Limits()
        self.vetting = vetting(database, self.store, executor)
        self.ingests = Ingests(
            database, self.store, self.vetting, self.limits, [], clock=clock, new_id=new_id
        )
        self.uploads = self.new_uploads()

    def new_uploads(self, **limits: Any) -> Uploads:
        """Another set of uploads on the same database and store, as after a restart."""
        self.limits = replace(self.limits, **limits)
        self.uploads = Uploads(
            self.database,
            self.store,
            self.limits,
            clock=clock,
            new_hasher=self.new_hasher,
            new_inspector=inspectors(self.executor),
        )
        return self.uploads

    def new_hasher(self) -> Hasher:
        return HookedHasher(Sha256(self.executor), self.hooks)

    async def create(self, data: bytes, model: str = "test", *, sha256: str = "") -> Ingest:
        """A new ingest of one file, `model.gguf`."""
        file = NewFile("model.gguf", FileRole.MODEL, len(data), sha256)
        return await self.ingests.create(NewIngest(model=model, files=(file,)))

    async def file(self, ingest: Ingest) -> File:
        """Its file as it is now."""
        return (await self.ingests.get(ingest.id)).files[0]

    async def push(self, ingest: Ingest, data: bytes, *, sha256: str | None = None) -> File:
        """One whole Upload call, as the servicer makes it."""
        async with self.uploads.receive(ingest.id, "model.gguf") as upload:
            await send_chunks(upload, data)
            return await self.uploads.finish(upload, digest(data) if sha256 is None else sha256)

    async def send_until(self, ingest: Ingest, data: bytes, then: Callable[[], Awaitable[Exception]]) -> None:
        """An Upload call that gets as far as its last chunk and then ends with what `then` answers."""
        async with self.uploads.receive(ingest.id, "model.gguf") as upload:
            await send_chunks(upload, data)
            raise await then()

    def partials(self) -> list[str]:
        return [path.name for path in (self.data_dir / "uploads").glob("*.part")]

    def kept(self, file: File) -> bytes:
        """What is in the file's partial; nothing if there is none."""
        path = self.data_dir / "uploads" / f"{file.id}.part"
        return path.read_bytes() if path.exists() else b""

    def blob(self, data: bytes) -> bytes | None:
        """The stored bytes that ought to be `data`."""
        path = self.data_dir / "blobs" / digest(data).replace(":", "-")
        return path.read_bytes() if path.exists() else None


async def check_resumable(parts: Parts, ingest: Ingest, data: bytes, *, distrusted: bool = False) -> int:
    """The file waits for the rest, exactly its committed bytes are kept, and the same push then ends well.

    Answers how many bytes had not to be sent again. `distrusted`: what lies behind the committed bytes was
    never synced, and may be anything by then.
    """
    await eventually(lambda: not parts.uploads._background)
    after = await parts.ingests.get(ingest.id)
    file = after.files[0]
    assert (after.state, file.state, file.failure) == (IngestState.UPLOADING, FileState.UPLOADING, None)
    assert (parts.uploads.active, parts.uploads.held_bytes) == (0, 0)
    assert parts.blob(data) is None
    kept = parts.kept(file)
    assert kept[: file.committed_size] == data[: file.committed_size]
    if distrusted:
        path = parts.data_dir / "uploads" / f"{file.id}.part"
        path.write_bytes(data[: file.committed_size] + bytes(len(kept) - file.committed_size))
    else:
        assert len(kept) == file.committed_size
    assert (await parts.push(ingest, data)).state is FileState.STORED
    assert parts.blob(data) == data
    return file.committed_size


async def send_chunks(upload: UploadSession | StoredAlready, data: bytes) -> None:
    """All of it, in chunks of 64 KiB."""
    if isinstance(upload, StoredAlready):
        return
    for offset in range(0, len(data), 64 * KIBIBYTE):
        part = data[offset : offset + 64 * KIBIBYTE]
        await upload.chunk(offset, part, google_crc32c.value(part))


@asynccontextmanager
async def running_parts(url: str, data_dir: Path) -> AsyncIterator[Parts]:
    """Parts that are stopped in good order in the end."""
    executor, hooks = FileExecutor(4), Hooks()
    database = HookedDatabase(url, hooks)
    parts = Parts(database, hooks, data_dir, executor)
    data_dir.mkdir(exist_ok=True)
    await parts.local.prepare()
    try:
        yield parts
    finally:
        hooks.clear()
        await parts.uploads.close()
        await database.close()
        executor.close()


async def eventually(condition: Callable[[], Awaitable[bool] | bool], what: str = "") -> None:
    """Waits until it is so, with a bound that only a broken service reaches."""
    async with asyncio.timeout(30):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)


def model_bytes(size_bytes: int = 300 * KIBIBYTE, seed: int = 0) -> bytes:
    return gguf(size_bytes, seed)
