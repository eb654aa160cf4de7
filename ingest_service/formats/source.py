"""Bytes as they arrive, for readers that are written as generators.

A reader yields the number of bytes that it needs before it can go on, and is not resumed before they are
there: any split of a file gives the same result. What it asks for is bounded by its own constants, never by a
number from the file.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import TypeVar

from ingest_service.formats.faults import Faults, refuse

T = TypeVar("T")
#: A reader's step: it yields how many bytes it wants, and returns a T.
Steps = Generator[int, None, T]

_COMPACT_BYTES = 64 << 10


class Source:
    """The unread bytes of one file of `size_bytes`, whose header may have `header_limit_bytes`.

    `faults` is what was found to be wrong with the file so far.
    """

    def __init__(
        self, size_bytes: int, header_limit_bytes: int, rules_as_warnings: Collection[str] = ()
    ) -> None:
        self.size_bytes = size_bytes
        self.offset = 0
        self.faults = Faults(rules_as_warnings)
        self._limit_bytes = header_limit_bytes
        self._buffer = bytearray()
        self._at = 0

    @property
    def available(self) -> int:
        return len(self._buffer) - self._at

    @property
    def left(self) -> int:
        """How much of the header can still come: what is left of the file, or of the limit."""
        return min(self.size_bytes, self._limit_bytes) - self.offset

    def shortage(self, wanted: int, at: int) -> str:
        """In words, for `wanted` bytes from `at` on: whether the file ends before, or the limit."""
        rest = self.size_bytes - at
        if wanted > rest:
            return f"only {rest} bytes of the file come after that: it is cut short, or damaged here"
        return f"only {min(rest, self._limit_bytes - at)} bytes of the header may come after that"

    def feed(self, piece: bytes | memoryview) -> None:
        # Moving the rest down for each byte would make a slow client's file cost its square.
        if self._at > _COMPACT_BYTES:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += piece

    def window(self, most: int) -> bytes:
        """The unread bytes that are there, or the first of them; `consume` says how many were read."""
        return bytes(memoryview(self._buffer)[self._at : self._at + most])

    def consume(self, count: int) -> None:
        self._at += count
        self.offset += count

    def require(self, count: int, field: str) -> None:
        """Refuses a field of `count` bytes that the file or the limit has no room for."""
        if count > self.size_bytes - self.offset:
            message = f"The file of {self.size_bytes} bytes ends within its header."
            refuse("S1", self.offset, field, message)
        if count > self._limit_bytes - self.offset:
            refuse("H7", self.offset, field, f"The header is longer than {self._limit_bytes} bytes.")

    def take(self, count: int, field: str) -> Steps[bytes]:
        """The next bytes; `count` is one of the reader's own small numbers."""
        self.require(count, field)
        while self.available < count:
            yield count
        start = self._at
        self.consume(count)
        return bytes(memoryview(self._buffer)[start : start + count])

    def pieces(self, count: int, field: str) -> Generator[int, None, None]:
        """Passes over bytes of which nothing is kept."""
        self.require(count, field)
        while count:
            if not self.available:
                yield 1
            step = min(count, self.available)
            self.consume(step)
            count -= step

    def drop(self) -> None:
        """Frees the buffer: nothing more will be read."""
        self._buffer = bytearray()
        self._at = 0
