"""Whether targets that did not answer are back, asked often, so that nothing waits longer than it has to."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from functools import partial

from ingest_service.database import Database, Transaction
from ingest_service.forwarding.breaker import Breaker
from ingest_service.forwarding.ollama import OllamaClient
from ingest_service.forwarding.target import Target, TargetError

#: One that is slower is not woken by this, but by its own next try.
_PATIENCE_SECONDS = 2.0
_AT_ONCE = 32


class Probes:
    """Asks `GET /api/version` of targets whose last attempt got no answer, or that something waits for.

    What waits is woken only when a target was found silent here and then answers: one that answers this
    question and fails at another is left to the backoff of its deployments. What waits when the process
    begins is woken once in any case: nobody may have looked while there was no process.
    """

    def __init__(
        self, database: Database, targets: Mapping[str, Target], breakers: Mapping[str, Breaker]
    ) -> None:
        self._database = database
        self._targets = targets
        self._breakers = breakers
        self._silent: set[str] = set()
        self._has_begun = False

    async def round(self, busy: Collection[str]) -> list[str]:
        """Asks each once; answers those that are back. `busy` are being asked by an attempt just now. Raises
        DatabaseDown."""
        waited_for = await self._database.read(lambda tx: tx.deployments.waited_for(self._targets.keys()))
        if not self._has_begun:
            self._silent |= waited_for
            self._has_begun = True
        asked = waited_for | {name for name, breaker in self._breakers.items() if breaker.is_open}
        self._silent &= asked
        names = sorted(asked.difference(busy))
        free = asyncio.Semaphore(_AT_ONCE)
        answers = await asyncio.gather(*(self._answers(self._targets[name], free) for name in names))
        back = [
            name for name, answered in zip(names, answers, strict=True) if answered and name in self._silent
        ]
        self._silent |= {name for name, answered in zip(names, answers, strict=True) if not answered}
        for name in back:
            await self._database.transact(partial(_end_waits, target=name))
            self._breakers[name].succeeded()
            self._silent.discard(name)
        return back

    @staticmethod
    async def _answers(target: Target, free: asyncio.Semaphore) -> bool:
        async with free:
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS), OllamaClient(target) as client:
                    await client.version()
            except (TargetError, TimeoutError):
                return False
            return True


async def _end_waits(tx: Transaction, target: str) -> int:
    return await tx.deployments.end_waits([target])
