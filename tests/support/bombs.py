"""Requests of few bytes that protobuf would turn into very many objects, as bytes."""

from __future__ import annotations

from collections.abc import Iterator

BYTES = 4 * 1024 * 1024 - 1024


def field(number: int, value: bytes) -> bytes:
    """A field that holds bytes, a text or a message."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    """As protobuf writes it."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def filled(one: bytes, size_bytes: int = BYTES) -> bytes:
    """As many of `one` as there is room for."""
    return one * (size_bytes // len(one))


def nested(depth: int) -> bytes:
    """google.protobuf.Value: lists within lists."""
    value = b""
    for _ in range(depth):
        value = field(6, field(1, value))
    return value


def create_bombs() -> Iterator[tuple[str, bytes, str, str]]:
    """Of CreateIngest: what it is, its bytes, and the reason and field that it is refused with."""
    empty = b"\x00"
    unsupported, invalid = "OPTION_UNSUPPORTED", "ARGUMENT_INVALID"
    members = filled(field(1, field(1, b"p")), 2_900_000)
    words = field(1, field(1, b"stop") + field(2, field(6, filled(b"\x0a\x00", 2_900_000))))
    yield "files", filled(b"\x12" + empty), unsupported, "files"
    yield "targets", filled(b"\x22" + empty), invalid, "targets"
    yield "messages", field(3, filled(b"\x2a" + empty, 2_900_000)), unsupported, "options.messages"
    yield "licenses", field(3, filled(b"\x1a" + empty, 2_900_000)), unsupported, "options.licenses"
    yield "members", field(3, field(4, members)), unsupported, "options.parameters"
    yield "stop words", field(3, field(4, words)), unsupported, "options.parameters"
    deep = field(1, field(1, b"p") + field(2, nested(60)))
    yield "depth", field(3, field(4, deep)), invalid, "options.parameters"
    yield "one field again and again", filled(b"\x0a" + empty), invalid, "request"
    yield "unknown fields", filled(b"\x7a" + empty), invalid, "request"
