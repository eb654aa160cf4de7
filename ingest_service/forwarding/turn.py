"""The turn to create on a target: one at a time, across all processes of the service.

Ollama deletes blobs that two creates share without a grace period (ollama-contract.md 3.5), and of two
creates of one name the later wins: both are settled by letting only one run.
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Self

from ingest_service.database import Database, Lease, Transaction
from ingest_service.vocabulary.errors import IngestError

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.3


class TargetTurn:
    """`async with`: waits for the turn, as long as whoever has it shows signs of life.

    Left by a cancellation, the turn runs out by itself: what was begun on the target may still go on there.
    """

    def __init__(self, database: Database, lease: Lease, lease_seconds: float) -> None:
        self._database = database
        self._target = lease.target
        self._owner = f"{lease.deployment_id}/{lease.fencing}"
        self._lease_seconds = lease_seconds
        self._held = False

    async def renew(self, tx: Transaction) -> bool:
        """In the transaction that renews the deployment's lease: the turn goes on as well, if it is ours.

        False if another has it now: tell `lost`, once the transaction is committed.
        """
        return not self._held or await self._take(tx)

    def lost(self) -> None:
        """Told once: the create that runs is not torn off, for that would wedge Ollama (contract 3.4)."""
        self._held = False
        _log.warning("the turn on a target was lost while it was creating", extra={"target": self._target})

    async def __aenter__(self) -> Self:
        while not await self._database.transact(self._take):  # noqa: ASYNC110 (another process may have it)
            await asyncio.sleep(_POLL_SECONDS)
        self._held = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held = False
        if isinstance(error, asyncio.CancelledError):
            return
        try:
            await self._database.transact(lambda tx: tx.targets.end_turn(self._target, self._owner))
        except IngestError:
            return  # it runs out by itself

    async def _take(self, tx: Transaction) -> bool:
        return await tx.targets.take_turn(self._target, self._owner, self._lease_seconds)
