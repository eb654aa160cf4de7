"""A store with one blob in it, and a scanner whose pace and faults a test decides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingest_service.blobs import Outcome, Rehasher
from ingest_service.database import Database
from ingest_service.formats import RULES_VERSION
from ingest_service.storage import BlobScan, BlobScanner
from ingest_service.vocabulary.records import Blob, Inspection
from tests.support.files import digest

BOUND_SECONDS = 60.0
#: For tests whose subject is not the database.
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def now() -> datetime:
    return datetime.now(UTC)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for the condition, within reason."""
    async with asyncio.timeout(BOUND_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


def damage(path: Path, how: str) -> None:
    """Does to a stored file what a bad disk does."""
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
    elif how == "short":
        data.pop()
    elif how == "long":
        data.append(0)
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(data)


class Kept:
    """Blobs, as an upload leaves them."""

    def __init__(self, database: Database, directory: Path) -> None:
        self.database = database
        self.blobs = directory / "blobs"

    def path(self, data: bytes) -> Path:
        return self.blobs / digest(data).replace(":", "-")

    def put_file(self, data: bytes) -> None:
        """A new file under the name, as the last step of an upload puts it there."""
        self.blobs.mkdir(parents=True, exist_ok=True)
        aside = self.blobs / "aside"
        aside.write_bytes(data)
        aside.rename(self.path(data))

    async def put_row(self, data: bytes, verified_at: datetime = LONG_AGO) -> str:
        """What the transaction after it writes."""
        sha256, inspection = digest(data), Inspection("gguf", RULES_VERSION, {})
        await self.database.transact(
            lambda tx: tx.blobs.make_live(sha256, len(data), inspection, verified_at)
        )
        return sha256

    async def put(self, data: bytes, verified_at: datetime = LONG_AGO) -> str:
        self.put_file(data)
        return await self.put_row(data, verified_at)

    async def row(self, sha256: str) -> Blob:
        return (await self.database.read(lambda tx: tx.blobs.some([sha256])))[sha256]


class Steered:
    """A scanner that notes what is read, and does what a test wants before a piece or after the last."""

    def __init__(self, inner: BlobScanner) -> None:
        self._inner = inner
        #: The digest of each piece that was asked for, in order.
        self.pieces: list[str] = []
        #: While it is not set no piece is read.
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.before_piece: Callable[[], Awaitable[None]] | None = None
        self.after_current: Callable[[], Awaitable[None]] | None = None
        self.open_scans = 0

    @contextlib.asynccontextmanager
    async def open(self, sha256: str) -> AsyncIterator[BlobScan]:
        async with self._inner.open(sha256) as scan:
            self.open_scans += 1
            try:
                yield _Scan(scan, sha256, self)
            finally:
                self.open_scans -= 1


class _Scan:
    def __init__(self, inner: BlobScan, sha256: str, steered: Steered) -> None:
        self._inner = inner
        self._sha256 = sha256
        self._steered = steered

    @property
    def size_bytes(self) -> int:
        return self._inner.size_bytes

    async def hash_next(self) -> int:
        self._steered.pieces.append(self._sha256)
        await self._steered.may_read.wait()
        if self._steered.before_piece is not None:
            await self._steered.before_piece()
        return await self._inner.hash_next()

    def digest(self) -> str:
        return self._inner.digest()

    async def is_current(self) -> bool:
        answer = await self._inner.is_current()
        if self._steered.after_current is not None:
            await self._steered.after_current()
        return answer


async def outcome(rehasher: Rehasher, sha256: str, *, bytes_per_second: int = 0) -> Outcome:
    """One reading, waited for."""
    async with rehasher.of(sha256, bytes_per_second=bytes_per_second) as reading:
        async with asyncio.timeout(BOUND_SECONDS):
            await reading.ended()
        return reading.outcome()
