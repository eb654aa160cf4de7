"""Reads stored blobs again and compares their digests: the only way to find rot before it is used.

One file is read at a time, piece by piece, at the lowest priority. Who asks for a digest that is being read
already shares that reading. Readings with a rate (the scheduled ones) give way, between two pieces, to those
without, for which somebody waits.

What is found is written under the row as it was before the reading (`BlobQueries.mark_verified`): an upload
of the same bytes that lands meanwhile always wins. A disk that cannot be read marks nothing: a loose cable
would make the whole store CORRUPT, and nothing unreadable is ever forwarded anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from enum import StrEnum

from ingest_service.database import Database
from ingest_service.storage import BlobScan, BlobScanner
from ingest_service.vocabulary.errors import BlobCorrupt, Draining, WriterBusy
from ingest_service.vocabulary.records import Blob
from ingest_service.vocabulary.states import BlobState

_log = logging.getLogger(__name__)
#: Each one more means that somebody replaced the file, or judged it, while it was being read.
_TRIES = 5


class Outcome(StrEnum):
    """What a reading found."""

    SOUND = "SOUND"
    CORRUPT = "CORRUPT"
    #: Nobody wants the blob any more: it is being removed.
    GONE = "GONE"


class Rehash:
    """One reading, shared by all who asked for its digest. Its numbers may be looked at at any time."""

    def __init__(self, sha256: str) -> None:
        self.sha256 = sha256
        self.read_bytes = 0
        self.size_bytes = 0
        #: For each who shares it, the rate; 0: as fast as can be.
        self._rates: list[int] = []
        self._rate_changed = asyncio.Event()
        self._turn = asyncio.Event()
        self._task: asyncio.Task[Outcome] | None = None

    async def ended(self, within_seconds: float | None = None) -> bool:
        """Waits for its end, at most that long; whether it has come."""
        assert self._task is not None
        await asyncio.wait({self._task}, timeout=within_seconds)
        return self._task.done()

    def outcome(self) -> Outcome:
        """Once it has ended. Raises StorageFailed, BackendDown, WriterBusy, Draining."""
        assert self._task is not None
        if self._task.cancelled():
            raise Draining
        return self._task.result()

    @property
    def bytes_per_second(self) -> int:
        """That of its most hurried reader; 0: no limit."""
        return 0 if 0 in self._rates else max(self._rates, default=0)


class Rehasher:
    """All readings of this process."""

    def __init__(self, database: Database, scanner: BlobScanner, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._scanner = scanner
        self._clock = clock
        #: In the order in which they were asked for.
        self._readings: dict[str, Rehash] = {}
        self._tasks: set[asyncio.Task[Outcome]] = set()
        self._closed = False

    @contextlib.asynccontextmanager
    async def of(self, sha256: str, *, bytes_per_second: int = 0) -> AsyncGenerator[Rehash, None]:
        """A reading of that blob, begun or shared; it stops when the last who shares it leaves.

        Raises Draining.
        """
        if self._closed:
            raise Draining
        reading = self._readings.get(sha256) or self._begin(sha256)
        self._share(reading, bytes_per_second, joins=True)
        try:
            yield reading
        finally:
            self._share(reading, bytes_per_second, joins=False)

    async def close(self) -> None:
        """Ends every reading; who waits for one is told Draining."""
        self._closed = True
        for task in self._tasks:
            # Once is enough: a second time would tear off its tidying up.
            if not task.cancelling():
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, sha256: str) -> Rehash:
        reading = self._readings[sha256] = Rehash(sha256)
        task = reading._task = asyncio.create_task(self._run(reading))
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._end(reading, ended))
        return reading

    def _end(self, reading: Rehash, task: asyncio.Task[Outcome]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be left to ask
        self._forget(reading)

    def _forget(self, reading: Rehash) -> None:
        if self._readings.get(reading.sha256) is reading:
            del self._readings[reading.sha256]
        self._give_turn()

    def _share(self, reading: Rehash, bytes_per_second: int, *, joins: bool) -> None:
        if joins:
            reading._rates.append(bytes_per_second)
        else:
            reading._rates.remove(bytes_per_second)
            if not reading._rates:
                assert reading._task is not None
                reading._task.cancel()
                # Who asks from now on begins a new one.
                self._forget(reading)
        reading._rate_changed.set()
        self._give_turn()

    def _give_turn(self) -> None:
        """The first without a rate, else the first, may read its next piece."""
        waiting = list(self._readings.values())
        first = next((one for one in waiting if not one.bytes_per_second), waiting[0] if waiting else None)
        for one in waiting:
            if one is first:
                one._turn.set()
            else:
                one._turn.clear()

    async def _run(self, reading: Rehash) -> Outcome:
        for _ in range(_TRIES):
            seen = await self._row(reading.sha256)
            if seen is None or seen.state is BlobState.DELETING:
                return Outcome.GONE
            reading.read_bytes, reading.size_bytes = 0, seen.size_bytes
            found = await self._read(reading, seen)
            if found is not None and await self._record(seen, found):
                return Outcome.SOUND if found == seen.sha256 else Outcome.CORRUPT
        raise WriterBusy("Others replace the same bytes again and again; ask again.")

    async def _row(self, sha256: str) -> Blob | None:
        return (await self._database.read(lambda tx: tx.blobs.some([sha256]))).get(sha256)

    async def _read(self, reading: Rehash, seen: Blob) -> str | None:
        """The digest that was found, or why there is none; None if other bytes lie there by now."""
        try:
            async with self._scanner.open(seen.sha256) as scan:
                found = f"{scan.size_bytes} bytes"
                if scan.size_bytes == seen.size_bytes:
                    await self._hash(reading, scan)
                    found = scan.digest()
                # An upload may have put a good file in the place of the rotten one that is open here.
                return found if found == seen.sha256 or await scan.is_current() else None
        except BlobCorrupt:
            return "no file"

    async def _hash(self, reading: Rehash, scan: BlobScan) -> None:
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        while reading.read_bytes < scan.size_bytes:
            await reading._turn.wait()
            began = loop.time()
            count = await scan.hash_next()
            if not count:
                return
            reading.read_bytes += count
            rate = reading.bytes_per_second
            if rate:
                next_at = max(next_at, began) + count / rate
                await self._pause(reading, next_at - loop.time())

    @staticmethod
    async def _pause(reading: Rehash, seconds: float) -> None:
        """That long, or until somebody joins who is in a hurry."""
        reading._rate_changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                while reading.bytes_per_second:
                    await reading._rate_changed.wait()
                    reading._rate_changed.clear()

    async def _record(self, seen: Blob, found: str) -> bool:
        if found == seen.sha256:
            now = self._clock()
            written = await self._database.transact(lambda tx: tx.blobs.mark_verified(seen, now))
            if written and seen.state is BlobState.CORRUPT:
                _log.warning("a corrupt blob has its own bytes again", extra={"sha256": seen.sha256})
            return written
        written = await self._database.transact(lambda tx: tx.blobs.mark_rotten(seen))
        if written:
            _log.error(
                "a stored blob is not what it was; push the same file again",
                extra={"sha256": seen.sha256, "size_bytes": seen.size_bytes, "found": found},
            )
        return written
