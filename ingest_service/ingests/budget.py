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

    async def take(self, size_bytes: int) -> None:
        """Waits until `size_bytes` are free and takes them; more than the capacity counts as all of it."""
        size_bytes = min(size_bytes, self._capacity)
        if not self._waiting and size_bytes <= self._left:
            self._left -= size_bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(size_bytes)
            else:
                self._waiting.remove((size_bytes, turn))
                self._grant()
            raise

    def give_back(self, size_bytes: int) -> None:
        """Returns what `take` took."""
        self._left += min(size_bytes, self._capacity)
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._left:
            size_bytes, turn = self._waiting.popleft()
            self._left -= size_bytes
            turn.set_result(None)
