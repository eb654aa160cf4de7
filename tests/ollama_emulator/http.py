"""HTTP/1.1 on a raw non-blocking socket: request heads in, responses out, RST at will.

No asyncio transport sits in between, because the emulator must decide itself when a byte is
read (the 200 short circuit reads none) and how a connection dies (contract section 9).
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
import struct
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import unquote

_MAX_HEAD = 1 << 20  # Go's DefaultMaxHeaderBytes
_READ = 64 << 10


class ClientGone(Exception):
    """The peer closed or reset the connection."""


class Reset(Exception):
    """The emulator wants this connection to end with a TCP RST."""


class HangUp(Exception):
    """The emulator wants this connection to end with a plain FIN."""


class BadRequest(Exception):
    """A request that Go's net/http refuses before any handler sees it."""


@dataclass
class Head:
    method: str
    target: str
    version: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return unquote(self.target.partition("?")[0], errors="replace")

    @property
    def keep_alive(self) -> bool:
        connection = self.headers.get("connection", "").lower()
        return connection == "keep-alive" if self.version == "HTTP/1.0" else connection != "close"


@dataclass
class Response:
    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


def render_head(status: int, headers: list[tuple[str, str]]) -> bytes:
    try:
        reason = http.HTTPStatus(status).phrase
    except ValueError:
        reason = f"status code {status}"
    lines = [f"HTTP/1.1 {status} {reason}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append(f"Date: {formatdate(usegmt=True)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


class Wire:
    """One accepted socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # every write is a segment
        self.sock = sock
        self.buffer = bytearray()
        self._loop = asyncio.get_running_loop()

    async def fill(self) -> bool:
        """Reads a little more into the buffer; False at end of stream."""
        try:
            data = await self._loop.sock_recv(self.sock, _READ)
        except OSError as error:
            raise ClientGone(str(error)) from error
        self.buffer += data
        return bool(data)

    async def readinto(self, view: memoryview) -> int:
        """Up to len(view) bytes, buffered ones first; 0 at end of stream."""
        if self.buffer:
            count = min(len(view), len(self.buffer))
            view[:count] = self.buffer[:count]
            del self.buffer[:count]
            return count
        try:
            return await self._loop.sock_recv_into(self.sock, view)
        except OSError as error:
            raise ClientGone(str(error)) from error

    async def read_line(self, limit: int = 8192) -> bytes:
        """One line without its end; raises EOFError if the stream ends first."""
        while (end := self.buffer.find(b"\n")) < 0:
            if len(self.buffer) > limit:
                raise BadRequest("line too long")
            if not await self.fill():
                raise EOFError
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return line.removesuffix(b"\r")

    async def read_head(self) -> Head | None:
        """The next request head, or None when the client is done with this connection."""
        try:
            line = b""
            while not line:
                line = await self.read_line(_MAX_HEAD)
            parts = line.decode("latin-1").split(" ")
            if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
                raise BadRequest("malformed HTTP request")
            headers: dict[str, str] = {}
            while line := await self.read_line(_MAX_HEAD):
                name, found, value = line.decode("latin-1").partition(":")
                if not found or not name or name != name.strip():
                    raise BadRequest("malformed MIME header")
                headers[name.lower()] = value.strip()
        except (EOFError, ClientGone):
            return None
        if parts[2] == "HTTP/1.1" and "host" not in headers:
            raise BadRequest("missing required Host header")
        return Head(parts[0], parts[1], parts[2], headers)

    async def send(self, data: bytes) -> None:
        try:
            await self._loop.sock_sendall(self.sock, data)
        except OSError as error:
            raise ClientGone(str(error)) from error

    def gone(self) -> bool:
        """Whether the client has closed its end, seen without consuming anything.

        Like Go's background read: bytes of a pipelined request hide a later FIN.
        """
        try:
            return self.sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def finish_writing(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Closes with SO_LINGER 0, so that the peer gets an RST."""
        if self.sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.sock.close()

    def close(self) -> None:
        self.sock.close()
