"""Targets that answer without end, or at great cost: for tests, and as a program for benchmarks.

python -m tests.support.hostile_ollama WAY      # prints its port, answers until it is killed
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Awaitable, Callable, Iterator

from tests.support.raw_server import End, RawServer

_PIECE_BYTES = 256 * 1024
_SHOW_BYTES = 16 * 1024 * 1024 - 1024
_TAGS_BYTES = 4 * 1024 * 1024 - 1024
_NOT_FOUND = b'{"error":"model \'m\' not found"}'
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

Flood = Callable[[], Iterator[bytes]]


def forever(first: bytes, piece: bytes) -> Flood:
    """`first`, then `piece` again and again, in writes of a quarter of a MiB."""
    return lambda: itertools.chain([first], itertools.repeat(piece * max(1, _PIECE_BYTES // len(piece))))


def once(body: bytes) -> Flood:
    return lambda: iter([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body])


def filled(start: bytes, unit: bytes, end: bytes, size_bytes: int) -> bytes:
    """A body of that size: `unit,unit,...` between start and end."""
    count = (size_bytes - len(start) - len(end)) // (len(unit) + 1)
    return start + b",".join([unit] * count) + end


#: By name: the path that it is said at, and what.
FLOODS: dict[str, tuple[str, Flood]] = {
    "endless lines": ("/api/create", forever(_HEAD + b"Connection: close\r\n\r\n", b"{}\n")),
    "blank lines": ("/api/create", forever(_HEAD + b"Connection: close\r\n\r\n", b"\n")),
    "chunks of 1 byte": ("/api/create", forever(_CHUNKED, b"1\r\n{\r\n")),
    "1xx instead of create": ("/api/create", forever(b"", b"HTTP/1.1 100 \r\n\r\n")),
    "1xx instead of a version": ("/api/version", forever(b"", b"HTTP/1.1 100 \r\n\r\n")),
    "lines after success": ("/api/create", forever(_HEAD + b"\r\n" + b'{"status":"success"}\n', b"{}\n")),
    "16 MiB of show": ("/api/show", once(filled(b'{"a":[', b"{}", b"]}", _SHOW_BYTES))),
    "4 MiB of tags": ("/api/tags", once(filled(b'{"models":[', b"{}", b"]}", _TAGS_BYTES))),
}


class HostileOllama:
    """An Ollama that is all right but at one path: there `flood` comes, each piece after `pause_seconds`."""

    def __init__(self, path: str, flood: Flood, *, pause_seconds: float = 0.0, shows: bool = False) -> None:
        self._path = path
        self._flood = flood
        self._pause_seconds = pause_seconds
        #: The model is there from the first create on.
        self._shows = shows
        self._created = False
        self.calls: list[str] = []

    async def serve(self, end: End) -> None:
        """One connection."""
        while True:
            head = await end.reader.readuntil(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if lengths:
                await end.reader.readexactly(int(lengths[0].split(b":")[1]))
            method, _, rest = head.decode().partition(" ")
            await self._answer(end, method, rest.split(" ")[0])

    async def _answer(self, end: End, method: str, path: str) -> None:
        self.calls.append(path)
        said: Iterator[bytes] = self._plain(method, path)
        if path.endswith(self._path):
            said = self._flood()
        self._created = self._created or path.endswith("/api/create")
        for piece in said:
            end.writer.write(piece)
            await end.writer.drain()
            await asyncio.sleep(self._pause_seconds if path.endswith(self._path) else 0.0)

    def _plain(self, method: str, path: str) -> Iterator[bytes]:
        if method == "HEAD":
            return iter([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
        if path.endswith("/api/show") and not (self._shows and self._created):
            length = len(_NOT_FOUND)
            return iter([b"HTTP/1.1 404 no\r\nContent-Length: %d\r\n\r\n%s" % (length, _NOT_FOUND)])
        if path.endswith("/api/create"):
            return once(b'{"status":"success"}\n')()
        return once(b'{"version":"0.24.0"}')()


def running(hostile: HostileOllama) -> RawServer:
    """`async with running(...) as server`: it listens at `server.address`."""
    serve: Callable[[End], Awaitable[None]] = hostile.serve
    return RawServer(serve)


async def main(way: str) -> None:
    path, flood = FLOODS[way]
    async with running(HostileOllama(path, flood, shows=way == "4 MiB of tags")) as server:
        print(server.address.rpartition(":")[2], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
