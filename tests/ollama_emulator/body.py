"""Request bodies: Content-Length and chunked, read only as far as a handler asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from .http import BadRequest, Head, Wire

DRAIN_LIMIT = 256 << 10  # Go's maxPostHandlerReadBytes
_JSON_LIMIT = 64 << 20


class BodyError(Exception):
    """A body that ends early or is malformed; the text is Go's."""


class Body:
    def __init__(self, wire: Wire, head: Head) -> None:
        self._wire = wire
        self.chunked = "chunked" in head.headers.get("transfer-encoding", "").lower()
        length = head.headers.get("content-length", "0")
        if not self.chunked and not length.isdigit():
            raise BadRequest("bad Content-Length")
        self.length = None if self.chunked else int(length)
        self._expects = head.headers.get("expect", "").lower() == "100-continue"
        self._chunk_left = 0
        self.received = 0
        self.on_read: Callable[[int], None] | None = None
        self.ended = self.length == 0
        self.bytes_per_second: float | None = None
        self._triggers: list[tuple[int, Callable[[], Awaitable[None]]]] = []
        self._clock = 0.0

    def at(self, position: int, action: Callable[[], Awaitable[None]]) -> None:
        """Runs `action` once exactly `position` bytes have been read (faults hang here)."""
        self._triggers.append((position, action))
        self._triggers.sort(key=lambda trigger: trigger[0])

    async def start(self) -> None:
        """Runs what is due at the present position, without reading."""
        while self._triggers and self._triggers[0][0] <= self.received:
            await self._triggers.pop(0)[1]()

    async def readinto(self, view: memoryview) -> int:
        """Up to len(view) bytes, 0 at the end of the body."""
        await self.start()
        if self.ended:
            return 0
        if self._expects:
            # Go answers 100 on the first read only: the short circuit never sends it.
            self._expects = False
            await self._wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._triggers:
            view = view[: self._triggers[0][0] - self.received]
        if self.bytes_per_second is not None:
            view = view[: await self._throttle(len(view))]
        count = await (self._read_chunked(view) if self.chunked else self._read_plain(view))
        self.received += count
        if self.bytes_per_second is not None:
            self._clock = max(self._clock, time.monotonic()) + count / self.bytes_per_second
        if self.on_read is not None:
            self.on_read(self.received)
        return count

    async def _read_plain(self, view: memoryview) -> int:
        assert self.length is not None
        count = await self._wire.readinto(view[: self.length - self.received])
        if count == 0:
            raise BodyError("unexpected EOF")
        self.ended = self.received + count == self.length
        return count

    async def _read_chunked(self, view: memoryview) -> int:
        try:
            if self._chunk_left == 0:
                size = (await self._wire.read_line()).partition(b";")[0].strip()
                try:
                    self._chunk_left = int(size, 16)
                except ValueError:
                    raise BodyError("invalid byte in chunk length") from None
                if self._chunk_left == 0:
                    while await self._wire.read_line():
                        pass
                    self.ended = True
                    return 0
            count = await self._wire.readinto(view[: self._chunk_left])
            if count == 0:
                raise EOFError
            self._chunk_left -= count
            if self._chunk_left == 0 and await self._wire.read_line():
                raise BodyError("malformed chunked encoding")
        except EOFError:
            raise BodyError("unexpected EOF") from None
        return count

    async def _throttle(self, wanted: int) -> int:
        """A slow reader: small sips, so that TCP pushes back on the client."""
        assert self.bytes_per_second is not None
        await asyncio.sleep(self._clock - time.monotonic())
        return max(1, min(wanted, int(self.bytes_per_second / 20)))

    async def read_all(self) -> bytes:
        """A whole JSON body."""
        data = bytearray()
        view = memoryview(bytearray(64 << 10))
        while count := await self.readinto(view):
            data += view[:count]
            if len(data) > _JSON_LIMIT:
                raise BodyError("http: request body too large")
        return bytes(data)

    async def discard(self) -> None:
        view = memoryview(bytearray(256 << 10))
        while await self.readinto(view):
            await asyncio.sleep(0)

    async def drain(self) -> bool:
        """What Go does with a body its handler left unread: up to 256 KiB are thrown away to
        keep the connection; with more than that (False) it is closed (contract section 2)."""
        self._triggers.clear()
        self._expects = False
        self.on_read = None
        handled = self.received
        try:
            if self.length is not None and self.length - self.received > DRAIN_LIMIT:
                return False
            view = memoryview(bytearray(32 << 10))
            while self.received - handled <= DRAIN_LIMIT:
                if await self.readinto(view) == 0:
                    return True
            return False
        except BodyError:
            return False
        finally:
            self.received = handled  # drained bytes never reached a handler
