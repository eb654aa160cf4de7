"""Blobs in quarantine that are pushed again: taken back instead of sent again or stored twice.

A copy's name is never believed: its bytes are hashed first. A copy that differs stays where it is, for a
person to look at.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from ingest_service.blobs.inspector import Inspector
from ingest_service.blobs.reading import digest_of
from ingest_service.database import Database
from ingest_service.formats import FormatLimits
from ingest_service.storage import BlobStore, FileExecutor, LocalQuarantine, QuarantinedCopy
from ingest_service.vocabulary.errors import FormatInvalid, IngestError
from ingest_service.vocabulary.records import Inspection
from ingest_service.vocabulary.states import BlobState

_log = logging.getLogger(__name__)
#: A caller waits so long for copies to be read; clients give a call 30 s. What takes longer goes on behind
#: it, and the client sends the bytes meanwhile, or asks again.
WAIT_SECONDS = 20.0
#: Digests whose copies are read or wait for that; what is pushed beyond that is sent.
_MAX_WAITING = 1024
#: Calls that look for copies at the same time: more than one only where the disk stands still.
_MAX_LISTINGS = 64
#: Copies that were found to differ and need not be read again by this process.
_MAX_REMEMBERED = 1024


class TakingBack:
    """Reads one copy at a time. `close` must be awaited in the end."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        quarantine: LocalQuarantine,
        executor: FileExecutor,
        limits: FormatLimits,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._quarantine = quarantine
        self._executor = executor
        self._limits = limits
        self._clock = clock
        self._reading = asyncio.Semaphore(1)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._listings: set[asyncio.Task[dict[str, list[QuarantinedCopy]]]] = set()
        self._different: set[QuarantinedCopy] = set()
        self._closing = False

    async def take_back(self, wanted: Mapping[str, tuple[str, int]]) -> None:
        """Digest -> file name and length of what a client is about to send, none of it stored. What is in
        quarantine and sound is a LIVE blob afterwards, if it could be looked for and read within
        WAIT_SECONDS. Raises nothing.
        """
        if not wanted:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_SECONDS):
                waiting = {
                    self._begin(sha256, self._take_back(sha256, copies, wanted[sha256][0]))
                    for sha256, copies in (await self._copies(wanted)).items()
                }
                tasks = {task for task in waiting if task is not None}
                if tasks:
                    await asyncio.wait(tasks)

    def stored(self, sha256: str, size_bytes: int) -> None:
        """These bytes were just stored: copies of them in quarantine are read, and removed if they are the
        same. In the background.
        """
        self._begin(sha256, self._remove_copies(sha256, size_bytes))

    async def close(self) -> None:
        """Ends at once. What was being read stays in quarantine."""
        self._closing = True
        for task in self._tasks.values():
            task.cancel()
        for listing in self._listings:
            listing.cancel()
        while self._tasks or self._listings:
            await asyncio.wait({*self._tasks.values(), *self._listings})

    def _begin(self, sha256: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        running = self._tasks.get(sha256)
        if running is not None or self._closing or len(self._tasks) >= _MAX_WAITING:
            work.close()
            return running
        task = asyncio.create_task(self._logged(sha256, work))
        self._tasks[sha256] = task
        task.add_done_callback(lambda _: self._tasks.pop(sha256, None))
        return task

    async def _logged(self, sha256: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except IngestError as error:
            _log.warning("left a blob in quarantine", extra={"sha256": sha256, "detail": error.message})
        except Exception:  # noqa: BLE001 (logged; the bytes are sent, as if there were no copy)
            _log.exception("unforeseen fault while quarantine was looked at", extra={"sha256": sha256})
        finally:
            # A task that is cancelled before its first step has not begun it.
            work.close()

    async def _copies(self, wanted: Mapping[str, tuple[str, int]]) -> dict[str, list[QuarantinedCopy]]:
        """What is there of these digests and lengths; nothing while too many ask already."""
        if self._closing or len(self._listings) >= _MAX_LISTINGS:
            return {}
        # A task of its own: whoever waits no longer leaves a thread behind, and that counts until it is back.
        listing = asyncio.create_task(self._list(wanted))
        self._listings.add(listing)
        listing.add_done_callback(self._listings.discard)
        return await asyncio.shield(listing)

    async def _list(self, wanted: Mapping[str, tuple[str, int]]) -> dict[str, list[QuarantinedCopy]]:
        found: dict[str, list[QuarantinedCopy]] = {}
        try:
            for copy in await self._quarantine.copies(wanted.keys()):
                if copy.size_bytes == wanted[copy.sha256][1]:
                    found.setdefault(copy.sha256, []).append(copy)
        except IngestError as error:
            _log.warning("quarantine cannot be looked at", extra={"detail": error.message})
            return {}
        except Exception:  # noqa: BLE001 (logged; the bytes are sent, as if there were no copy)
            _log.exception("unforeseen fault while quarantine was looked at")
            return {}
        return found

    async def _take_back(self, sha256: str, copies: list[QuarantinedCopy], file_name: str) -> None:
        async with self._reading:
            if await self._is_live(sha256, copies[0].size_bytes):
                return
            for copy in copies:
                inspection = await self._proved(copy, file_name)
                if inspection is None:
                    continue
                if await self._quarantine.take_back(copy, partial(self._record, copy, inspection)):
                    _log.info(
                        "took a blob back from quarantine: it was pushed again",
                        extra={"sha256": sha256, "size_bytes": copy.size_bytes},
                    )
                    return

    async def _record(self, copy: QuarantinedCopy, inspection: Inspection) -> None:
        now = self._clock()
        await self._database.transact(
            lambda tx: tx.blobs.make_live(copy.sha256, copy.size_bytes, inspection, now)
        )

    async def _remove_copies(self, sha256: str, size_bytes: int) -> None:
        for copy in (await self._copies({sha256: ("", size_bytes)})).get(sha256, ()):
            async with self._reading:
                is_same = await self._has_its_digest(copy) and await self._is_live(sha256, size_bytes)
                if is_same and await self._quarantine.remove(copy):
                    _log.info(
                        "removed a copy from quarantine: the same bytes are stored again",
                        extra={"sha256": sha256, "copy": copy.name},
                    )

    async def _is_live(self, sha256: str, size_bytes: int) -> bool:
        row = (await self._database.read(lambda tx: tx.blobs.some([sha256]))).get(sha256)
        if row is None or row.state is not BlobState.LIVE:
            return False
        return await self._store.blob_size_bytes(sha256) == size_bytes

    async def _proved(self, copy: QuarantinedCopy, file_name: str) -> Inspection | None:
        """What it is as a file of that name; None if it is refused, or its bytes have another digest."""
        inspector = Inspector(file_name, copy.size_bytes, self._limits, self._executor)
        try:
            async with self._quarantine.open(copy) as reader:
                await inspector.catch_up(reader, copy.size_bytes)
        except FormatInvalid:
            # The client is told so when it sends the bytes.
            return None
        return inspector.inspection if await self._has_its_digest(copy) else None

    async def _has_its_digest(self, copy: QuarantinedCopy) -> bool:
        if copy in self._different:
            return False
        async with self._quarantine.open(copy) as reader:
            found = await digest_of(reader, self._executor)
        if found == copy.sha256:
            return True
        _log.error(
            "a blob in quarantine is not what its name says; it stays there",
            extra={"sha256": copy.sha256, "copy": copy.name, "found": found},
        )
        if len(self._different) < _MAX_REMEMBERED:
            self._different.add(copy)
        return False
