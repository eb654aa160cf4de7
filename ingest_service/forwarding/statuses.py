"""Writes what a target says as events, in order, without holding up the reading of its answer."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from ingest_service.forwarding.moves import DeploymentMoves
from ingest_service.lifecycle.change import MAX_STATUS_EVENTS
from ingest_service.vocabulary.errors import BackendDown

_BATCH = 100
_AGAIN_SECONDS = 1.0


class StatusWriter:
    """`async with`: what was put is written before the block ends, or it raises why not.

    No more words wait than a deployment may have events, so a target that talks without end costs bounded
    memory. Those that wait go into one transaction. While the database is away they go on waiting.
    """

    def __init__(self, moves: DeploymentMoves) -> None:
        self._moves = moves
        self._waiting: list[str] = []
        self._last = ""
        self._look_up = asyncio.Event()
        self._closing = False

    def put(self, status: str) -> None:
        """A line's status; repeated ones count once."""
        if status and status != self._last and len(self._waiting) < MAX_STATUS_EVENTS:
            self._last = status
            self._waiting.append(status)
            self._look_up.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._write())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._task.cancel()
        self._closing = True
        self._look_up.set()
        await self._task

    async def _write(self) -> None:
        while self._waiting or not self._closing:
            await self._look_up.wait()
            batch = self._waiting[:_BATCH]
            try:
                if batch:
                    await self._moves.statuses(batch)
            except BackendDown:
                if self._closing:
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            del self._waiting[: len(batch)]
            if not self._waiting and not self._closing:
                self._look_up.clear()
