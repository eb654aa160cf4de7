"""The turn to create or delete on a target: one at a time, across all processes of the service.

Ollama deletes blobs that two creates share without a grace period (ollama-contract.md 3.5), and of two
creates of one name the later wins: both are settled by letting only one run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from ingest_service.database import Database, Transaction
from ingest_service.events.hub import wait_for_flag
from ingest_service.forwarding.target import Unreachable
from ingest_service.vocabulary.errors import IngestError

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.3


class TargetTurn:
    """`async with`: waits for the turn, as long as whoever has it shows signs of life.

    Left by a cancellation, the turn runs out by itself: what was begun on the target may still go on there.
    Raises Unreachable once `wait_seconds` are over (None: never).
    """

    def __init__(
        self,
        database: Database,
        target: str,
        owner: str,
        lease_seconds: float,
        *,
        wait_seconds: float | None = None,
    ) -> None:
        """`owner` is nobody else's, not even that of an earlier turn for the same work."""
        self._database = database
        self._target = target
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._wait_seconds = wait_seconds
        self._held = False

    async def renew(self, tx: Transaction) -> bool:
        """In the transaction that renews the deployment's lease: the turn goes on as well, if it is ours.

        False if another has it now: tell `lost`, once the transaction is committed.
        """
        return not self._held or await self._take(tx)

    def lost(self) -> None:
        """Told once: the create that runs is not torn off, for that would wedge Ollama (contract 3.4)."""
        self._held = False
        _log.warning("the turn on a target was lost while it was used", extra={"target": self._target})

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renews the turn by itself: for an owner that has no deployment's lease to renew it with."""
        stop = asyncio.Event()
        renewing = asyncio.create_task(self._renew_until(stop))
        try:
            yield
        finally:
            # Not cancelled: that could leave a statement that takes the turn anew after it was given up.
            stop.set()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _renew_until(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await wait_for_flag(stop, self._lease_seconds / 3)
            try:
                if not stop.is_set() and not await self._database.transact(self._take):
                    self.lost()
                    return
            except IngestError:
                continue

    async def __aenter__(self) -> Self:
        clock = asyncio.get_running_loop().time
        began = clock()
        while not await self._database.transact(self._take):
            if self._wait_seconds is not None and clock() - began >= self._wait_seconds:
                raise Unreachable("A model is being created or removed there; that has to end first.")
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
