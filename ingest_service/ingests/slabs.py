"""The memory of the windows: received bytes are copied once into slabs, and leave them for disk and hash.

A chunk that stays where it arrived keeps its whole message, in memory that lies anywhere. In a slab the bytes
lie one after the other and at the same place within a block of memory as within a block of the file, so that
a slab is hashed in one call and written past the page cache from where it is (storage/direct.py); the
message's memory is free for the next message while it is still in the CPU's cache.
"""

from __future__ import annotations

import mmap
from collections import deque

from ingest_service.storage import BLOCK_BYTES, Buffer

SMALL_BYTES = 256 * 1024
_LARGE_BYTES = 4 * 1024 * 1024
#: Fresh memory costs a fault for each page: so many slabs wait for their next use, those touched last first.
_KEPT_SMALL = 32
_KEPT_LARGE = 8


class Slab:
    """A piece of memory that begins where a block does."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._memory = memoryview(mmap.mmap(-1, size_bytes))
        self._filled = self._taken = 0
        #: What is in it begins and ends here in the file.
        self.start = self.end = 0

    def begin(self, position: int) -> None:
        """Empty, for bytes from this place in the file on."""
        self._filled = self._taken = position % BLOCK_BYTES
        self.start = self.end = position

    @property
    def free_bytes(self) -> int:
        """Room that is left."""
        return self.size_bytes - self._filled

    @property
    def waiting_bytes(self) -> int:
        """Filled in and not taken yet."""
        return self._filled - self._taken

    @property
    def is_full(self) -> bool:
        return self._filled == self.size_bytes

    def fill(self, data: memoryview) -> int:
        """Copies as much as fits; answers how much that was."""
        size = min(len(data), self.size_bytes - self._filled)
        self._memory[self._filled : self._filled + size] = data[:size]
        self._filled += size
        self.end += size
        return size

    def take(self) -> memoryview:
        """What was filled in since the last time."""
        taken = self._memory[self._taken : self._filled]
        self._taken = self._filled
        return taken


class SlabPool:
    """Slabs of all uploads of the process. What they may hold together is the budget's to say."""

    def __init__(self, window_bytes: int) -> None:
        """`window_bytes`: what one upload may hold. While a slab is written the next ones are filled."""
        self._large_bytes = max(
            SMALL_BYTES, min(_LARGE_BYTES, window_bytes // 4 // BLOCK_BYTES * BLOCK_BYTES)
        )
        self._small: list[Slab] = []
        self._large: list[Slab] = []

    @property
    def idle_bytes(self) -> int:
        """Memory that waits for its next use."""
        return sum(slab.size_bytes for slab in (*self._small, *self._large))

    def take(self, *, large: bool) -> Slab:
        """One with anything in it; `begin` empties it."""
        idle, size_bytes = (self._large, self._large_bytes) if large else (self._small, SMALL_BYTES)
        return idle.pop() if idle else Slab(size_bytes)

    def give_back(self, slab: Slab) -> None:
        """Nobody reads from it any more."""
        idle, most = (
            (self._small, _KEPT_SMALL) if slab.size_bytes == SMALL_BYTES else (self._large, _KEPT_LARGE)
        )
        if len(idle) < most:
            idle.append(slab)


class Window:
    """What one upload holds in memory, in the order of the file."""

    def __init__(self, pool: SlabPool, start_bytes: int) -> None:
        self._pool = pool
        self._position = start_bytes
        self._slabs: deque[Slab] = deque()
        self._current: Slab | None = None
        self._spare: deque[Slab] = deque()
        # Who fills a small one before it is time to take it off gets a large one next.
        self._in_a_rush = False

    @property
    def waiting_bytes(self) -> int:
        """Taken in and not yet handed out."""
        return 0 if self._current is None else self._current.waiting_bytes

    def add(self, chunk: Buffer) -> list[memoryview]:
        """Copies the chunk; answers the segments that are full with it, to be written and hashed.

        Raises OSError or MemoryError where there is no memory for it; nothing has been taken in then.
        """
        self._make_room(len(chunk))
        rest, full = memoryview(chunk), []
        while rest:
            slab = self._current or self._next()
            size = slab.fill(rest)
            self._position += size
            rest = rest[size:]
            if slab.is_full:
                full.append(slab.take())
                self._current, self._in_a_rush = None, True
        return full

    def flush(self) -> memoryview | None:
        """What is waiting, full or not."""
        self._in_a_rush = False
        return self._current.take() if self._current is not None and self.waiting_bytes else None

    def release(self, position: int) -> int:
        """Up to this place in the file nobody needs the bytes any more. Answers up to where none is held: a
        slab goes as a whole."""
        while self._slabs and self._slabs[0].end <= position:
            slab = self._slabs.popleft()
            if slab is self._current:
                self._current = None
            self._pool.give_back(slab)
        return min(position, self._slabs[0].start) if self._slabs else position

    def clear(self) -> None:
        """Nobody needs anything any more."""
        self.release(self._position)
        while self._spare:
            self._pool.give_back(self._spare.popleft())

    def _make_room(self, size_bytes: int) -> None:
        # The first byte does not begin a slab unless it begins a block.
        room = -(self._position % BLOCK_BYTES) if self._current is None else self._current.free_bytes
        room += sum(slab.size_bytes for slab in self._spare)
        while room < size_bytes:
            is_large = self._in_a_rush or self._current is not None or size_bytes > SMALL_BYTES
            slab = self._pool.take(large=is_large)
            self._spare.append(slab)
            room += slab.size_bytes

    def _next(self) -> Slab:
        slab = self._spare.popleft()
        slab.begin(self._position)
        self._slabs.append(slab)
        self._current = slab
        return slab
