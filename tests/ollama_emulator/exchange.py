"""One request being answered: the response side of HTTP, with the faults that shape it."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Collection
from typing import Any

from .body import Body
from .calls import Call
from .faults import Armed, Kind
from .golang import dumps
from .http import ClientGone, HangUp, Head, Reset, Response, Wire, render_head

JSON = "application/json; charset=utf-8"


class Answer(Exception):
    """Ends a request with this response, wherever it was (a fault at byte k)."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def json_response(value: Any, status: int = 200, content_type: str = JSON) -> Response:
    return Response(status, dumps(value), content_type)


def error_response(message: str, status: int, content_type: str = JSON) -> Response:
    return json_response({"error": message}, status, content_type)


class Exchange:
    def __init__(self, wire: Wire, head: Head, body: Body, call: Call, reset_delay: float) -> None:
        self.wire = wire
        self.head = head
        self.body = body
        self.call = call
        self.armed: list[Armed] = []
        self.keep_alive = head.keep_alive
        self._reset_delay = reset_delay
        self._chunked = False
        self._gzip: Any = None

    def faults(self, *kinds: Kind) -> list[Armed]:
        wanted: Collection[Kind] = kinds
        return [armed for armed in self.armed if armed.fault.kind in wanted]

    async def respond(self, response: Response) -> None:
        """A whole response. A large unread body ends the connection as in Go: Connection:
        close, FIN, half a second, and then the RST (contract section 2)."""
        drained = await self.body.drain()
        self.keep_alive = self.keep_alive and drained
        body, headers = response.body, list(response.headers.items())
        if response.content_type:
            headers.append(("Content-Type", response.content_type))
        if body and self.faults(Kind.GZIP):
            packer = zlib.compressobj(wbits=31)
            body = packer.compress(body) + packer.flush()
            headers.append(("Content-Encoding", "gzip"))
        if self.head.method == "HEAD":
            body = b""  # and no Content-Length either
        elif response.status not in (204, 304):
            headers.append(("Content-Length", str(len(body))))
        if not self.keep_alive:
            headers.append(("Connection", "close"))
        self.call.status = response.status
        data = render_head(response.status, headers) + body
        if cuts := self.faults(Kind.CUT):
            await self.wire.send(data[: len(data) - len(body) // 2 - 1])
            raise Reset if cuts[0].fault.reset else HangUp
        await self.wire.send(data)
        self.call.outcome = "answered"
        if not drained:
            self.wire.finish_writing()
            await asyncio.sleep(self._reset_delay)
            raise Reset

    async def stall(self, armed: Armed) -> None:
        """Until released, until its seconds are over, or until the client leaves."""
        deadline = time.monotonic() + (armed.fault.seconds or 0)
        forever = armed.fault.seconds is None
        armed.stalled += 1
        try:
            while not armed.released and (forever or time.monotonic() < deadline):
                if self.wire.gone():
                    raise ClientGone("while stalled")
                await asyncio.sleep(0.01)
        finally:
            armed.stalled -= 1

    async def open_stream(self, content_type: str) -> None:
        self._chunked = self.head.version == "HTTP/1.1"
        self.keep_alive = self.keep_alive and self._chunked and await self.body.drain()
        headers = [("Content-Type", content_type)]
        if self.faults(Kind.GZIP):
            self._gzip = zlib.compressobj(wbits=31)
            headers.append(("Content-Encoding", "gzip"))
        if self._chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        if not self.keep_alive:
            headers.append(("Connection", "close"))
        self.call.status = 200
        await self.wire.send(render_head(200, headers))

    async def send_piece(self, data: bytes) -> None:
        """One HTTP chunk in one TCP segment: the flush after every line."""
        if self._gzip is not None:
            data = self._gzip.compress(data) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
        await self._send_chunk(data)

    async def _send_chunk(self, data: bytes) -> None:
        if self._chunked:
            data = f"{len(data):x}\r\n".encode() + data + b"\r\n"
        await self.wire.send(data)

    async def close_stream(self) -> None:
        if self._gzip is not None:
            await self._send_chunk(self._gzip.flush())
        if self._chunked:
            await self.wire.send(b"0\r\n\r\n")
        self.call.outcome = "answered"
