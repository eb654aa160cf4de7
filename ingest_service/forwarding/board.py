"""How the targets are, right now: for ListTargets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ingest_service.forwarding.ollama import OllamaClient
from ingest_service.forwarding.target import Target, TargetError

#: Who asks for the list wants it now; a target that is slower than this counts as not reachable.
_PATIENCE_SECONDS = 5.0
#: Many who ask at once share one round of questions.
_FRESH_SECONDS = 1.0
_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """One target, as it answered `GET /api/version`, or why it did not."""

    name: str
    version: str
    words: str
    checked_at: datetime
    latency_seconds: float

    @property
    def reachable(self) -> bool:
        """It answered."""
        return not self.words


class TargetBoard:
    """Asks every configured target, all at once, within a bounded time."""

    def __init__(self, targets: Sequence[Target], *, clock: Callable[[], datetime]) -> None:
        self._targets = tuple(targets)
        self._clock = clock
        self._asking: asyncio.Task[list[TargetStatus]] | None = None
        self._asked = 0.0

    async def look(self) -> list[TargetStatus]:
        """Every target, in the order of the configuration."""
        now = time.monotonic()
        if self._asking is None or (self._asking.done() and now - self._asked > _FRESH_SECONDS):
            self._asked = now
            self._asking = asyncio.create_task(self._ask_all())
        # Shielded: one who leaves must not take the answer from the others.
        return await asyncio.shield(self._asking)

    async def close(self) -> None:
        """Ends a round that still runs."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask_all(self) -> list[TargetStatus]:
        free = asyncio.Semaphore(_AT_ONCE)
        return await asyncio.gather(*(self._ask(target, free) for target in self._targets))

    async def _ask(self, target: Target, free: asyncio.Semaphore) -> TargetStatus:
        async with free:
            began, version, words = time.monotonic(), "", ""
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS), OllamaClient(target) as client:
                    version = await client.version()
            except TimeoutError:
                words = f"The target did not answer within {_PATIENCE_SECONDS:.0f} s."
            except TargetError as error:
                words = error.words
            return TargetStatus(target.name, version, words, self._clock(), time.monotonic() - began)
