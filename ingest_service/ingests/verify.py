"""Verifying one model while somebody waits: its stored bytes are read again, then its targets are asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ingest_service.blobs import Outcome, Rehash, Rehasher
from ingest_service.forwarding import TargetPresence, TargetVerdict
from ingest_service.ingests.lost_models import LostModels
from ingest_service.vocabulary.errors import BlobCorrupt, Draining, StorageFailed, TooManyWatches
from ingest_service.vocabulary.records import Model

#: A line a second is what a person reads; a client that hears nothing for a minute gives up.
_EVERY_SECONDS = 1.0
_NAMED_FILES = 20


@dataclass(frozen=True, slots=True)
class FileRead:
    """How far the reading of one file is."""

    file_name: str
    verified_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TargetsAsked:
    """What the targets say; comes once, after all files."""

    verdicts: Sequence[TargetVerdict]


VerifyItem = FileRead | TargetsAsked


class Verifications:
    """All VerifyModel calls of this process."""

    def __init__(
        self,
        find_model: Callable[[str], Awaitable[Model]],
        rehasher: Rehasher,
        presence: TargetPresence,
        lost_models: LostModels,
        *,
        max_calls: int = 16,
    ) -> None:
        self._find_model = find_model
        self._rehasher = rehasher
        self._presence = presence
        self._lost_models = lost_models
        self._max_calls = max_calls
        self._active = 0
        self._draining = asyncio.Event()

    @property
    def active(self) -> int:
        """Calls that are running."""
        return self._active

    def drain(self) -> None:
        """Ends every call with Draining."""
        self._draining.set()

    async def verify(self, name: str) -> AsyncGenerator[VerifyItem, None]:
        """Each file's progress about every second and at its end, then the targets' verdicts.

        The reader's pace is that of the messages, not that of the reading: nothing is queued for it. Who
        leaves early closes it (`contextlib.aclosing`). Raises NameInvalid, ModelNotFound, TooManyWatches,
        Draining; at the very end BlobCorrupt or StorageFailed, which name the files in their metadata.
        """
        if self._active >= self._max_calls:
            raise TooManyWatches("Too many models are being verified.")
        self._active += 1
        try:
            model = await self._find_model(name)
            corrupt: list[str] = []
            unreadable: list[str] = []
            seen: dict[str, Outcome | None] = {}
            for file in model.newest.files:
                assert file.sha256 is not None
                if file.sha256 in seen:
                    yield FileRead(file.file_name, file.size_bytes, file.size_bytes)
                else:
                    async with self._rehasher.of(file.sha256) as reading:
                        while not await self._ended(reading):
                            yield FileRead(file.file_name, reading.read_bytes, file.size_bytes)
                        yield FileRead(file.file_name, reading.read_bytes, file.size_bytes)
                        seen[file.sha256] = _outcome(reading)
                outcome = seen[file.sha256]
                if outcome is None:
                    unreadable.append(file.file_name)
                elif outcome is not Outcome.SOUND:
                    corrupt.append(file.file_name)
            verdicts = await self._ask(model)
            await self._lost_models.record([one.lost for one in verdicts if one.lost is not None])
            yield TargetsAsked(verdicts)
            _raise(corrupt, unreadable)
        finally:
            self._active -= 1

    async def _ended(self, reading: Rehash) -> bool:
        ended = asyncio.create_task(reading.ended())
        await self._wait(ended, _EVERY_SECONDS)
        return ended.done()

    async def _ask(self, model: Model) -> Sequence[TargetVerdict]:
        asking = asyncio.create_task(self._presence.ask(model))
        await self._wait(asking)
        return asking.result()

    async def _wait(self, task: asyncio.Future[Any], seconds: float | None = None) -> None:
        """Until the task is done or that time is over; whoever leaves meanwhile takes it with him."""
        draining = asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait({task, draining}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            draining.cancel()
            if not task.done():
                task.cancel()
        if self._draining.is_set():
            raise Draining


def _outcome(reading: Rehash) -> Outcome | None:
    """None: it could not be read."""
    with contextlib.suppress(StorageFailed):
        return reading.outcome()
    return None


def _raise(corrupt: Sequence[str], unreadable: Sequence[str]) -> None:
    for names, error, verb in (
        (corrupt, BlobCorrupt, "no longer match their digest: upload the same bytes again"),
        (unreadable, StorageFailed, "cannot be read: look at the disk"),
    ):
        if names:
            said = ", ".join(names[:_NAMED_FILES]) + (", ..." if len(names) > _NAMED_FILES else "")
            metadata = {"files": ",".join(names[:_NAMED_FILES]), "count": str(len(names))}
            raise error(f"The stored bytes of {said} {verb}.", metadata=metadata)
