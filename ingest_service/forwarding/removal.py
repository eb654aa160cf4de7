"""Removing a model from targets: each under the target's turn, so that nothing is created there meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ingest_service.database import Database
from ingest_service.forwarding.ollama import OllamaClient
from ingest_service.forwarding.target import Target, TargetError
from ingest_service.forwarding.turn import TargetTurn

_AT_ONCE = 32
#: Whoever asked waits: with the time that the target has to answer, less than a client's patience.
_TURN_SECONDS = 10.0


class TargetRemoval:
    """Asks targets, several at once, one model at a time on each."""

    def __init__(
        self,
        database: Database,
        targets: Sequence[Target],
        *,
        lease_seconds: float,
        new_id: Callable[[], str],
        turn_seconds: float = _TURN_SECONDS,
    ) -> None:
        self._database = database
        self._targets = {target.name: target for target in targets}
        self._lease_seconds = lease_seconds
        self._turn_seconds = turn_seconds
        self._new_id = new_id

    @property
    def names(self) -> tuple[str, ...]:
        """The targets that can be asked, in the order of the configuration."""
        return tuple(self._targets)

    async def remove(
        self, model: str, names: Sequence[str], check: Callable[[], Awaitable[None]]
    ) -> Mapping[str, bool | TargetError]:
        """By target: it had the model and removed it, it had none, or why it could not be asked.

        `check` is called once the turn on a target is had, right before the target is asked; what it raises
        is raised here, after all targets were seen to.
        """
        free = asyncio.Semaphore(_AT_ONCE)

        async def one(name: str) -> bool | TargetError:
            async with free:
                try:
                    return await self._remove(model, self._targets[name], check)
                except TargetError as error:
                    return error

        outcomes = await asyncio.gather(*(one(name) for name in names), return_exceptions=True)
        answers: dict[str, bool | TargetError] = {}
        for name, outcome in zip(names, outcomes, strict=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, TargetError):
                raise outcome
            answers[name] = outcome
        return answers

    async def _remove(self, model: str, target: Target, check: Callable[[], Awaitable[None]]) -> bool:
        # The turn is a row; our worker makes it too, but perhaps not yet.
        await self._database.transact(lambda tx: tx.targets.serve([target.name]))
        turn = TargetTurn(
            self._database,
            target.name,
            f"delete/{self._new_id()}",
            self._lease_seconds,
            wait_seconds=self._turn_seconds,
        )
        async with turn, turn.kept():
            await check()
            async with OllamaClient(target) as client:
                return await client.delete(model)
