"""One budget of received-but-unwritten bytes for the whole process."""

from __future__ import annotations

import asyncio
from collections import deque


class ByteBudget:
    """Bytes that may be held at once; who asks for more than is left waits, first come first served."""

    def __init__(self, capacity_bytes: int) -> None:
        self._left = capacity_bytes
        self._capacity = capacity_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held_bytes(self) -> int:
        """Bytes taken and not yet given back."""
        return self._capacity - self._left

    def take_at_once(self, size_bytes: int) -> bool:
        """Takes the bytes if they are there and nobody waits; False: `ask` for them."""
        wanted = min(size_bytes, self._capacity)
        if self._waiting or wanted > self._left:
            return False
        self._left -= wanted
        return True

    def ask(self, size_bytes: int) -> asyncio.Future[None]:
        """The bytes are the caller's once this is done; more than the capacity counts as all of it.

        A caller that stops waiting, cancelled or not, says so with `withdraw`.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((min(size_bytes, self._capacity), turn))
        self._grant()
        return turn

    def withdraw(self, size_bytes: int, turn: asyncio.Future[None]) -> None:
        """Takes an `ask` back, be it granted or not."""
        if turn.done() and not turn.cancelled():
            self.give_back(size_bytes)
        else:
            turn.cancel()
            self._grant()

    def give_back(self, size_bytes: int) -> None:
        """Returns what was granted."""
        self._left += min(size_bytes, self._capacity)
        self._grant()

    def _grant(self) -> None:
        while self._waiting:
            size_bytes, turn = self._waiting[0]
            if not turn.cancelled():
                if size_bytes > self._left:
                    return
                self._left -= size_bytes
                turn.set_result(None)
            self._waiting.popleft()
