"""The reader of tokenizer.model: a SentencePiece model, walked field by field; rules P.

It is a protobuf message of which the pieces, its first field, are looked at; of the rest only that the fields
follow each other up to the file's end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ingest_service.formats.faults import refuse
from ingest_service.formats.gguf.tokens import Tokens
from ingest_service.formats.incremental import IncrementalReader
from ingest_service.formats.json_files.reader import SetFacts
from ingest_service.formats.source import Source, Steps

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10
_MAX_FIELD = (1 << 29) - 1
_PIECES = 1
_TEXT = 1
#: A piece has a text, a score and a type; programs to come may add to it.
_PIECE_EXTRA_BYTES = 256
_BATCH = 1024


@dataclass(frozen=True, slots=True)
class SentencePieceLimits:
    """Real ones have up to 5 MB."""

    max_file_bytes: int = 64 << 20
    max_tokens: int = 1 << 20
    max_token_bytes: int = 64 << 10
    cpu_budget_seconds: float = 30.0


class SentencePieceReader(IncrementalReader[SetFacts]):
    """Reads one whole file of `size_bytes`."""

    def __init__(
        self,
        limits: SentencePieceLimits,
        size_bytes: int,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        source = Source(size_bytes, size_bytes)
        super().__init__(source, _read(source, limits), limits.cpu_budget_seconds, cpu_clock)


def _read(source: Source, limits: SentencePieceLimits) -> Steps[SetFacts]:
    if not 1 <= source.size_bytes <= limits.max_file_bytes:
        message = f"A tokenizer has 1 to {limits.max_file_bytes} bytes; this one has {source.size_bytes}."
        refuse("P1", 0, "file size", message)
    tokens, batch = Tokens(), list[bytes]()
    while source.offset < source.size_bytes:
        start = source.offset
        number, kind = _tag((yield from _read_varint(source)), start)
        index = len(tokens) + len(batch)
        if number == _PIECES and kind != _LENGTH:
            refuse("P2", start, f"piece {index}", "A piece is a message.")
        if kind == _VARINT:
            yield from _read_varint(source)
            continue
        length = _FIXED_BYTES.get(kind, 0)
        if kind == _LENGTH:
            length = yield from _read_varint(source)
        if length > (left := source.size_bytes - source.offset):
            refuse("P2", start, "field", f"A field of {length} bytes where {left} are left.")
        if number != _PIECES:
            yield from source.pieces(length, f"field {number}")
            continue
        batch.append((yield from _read_piece(source, length, index, limits)))
        if index >= limits.max_tokens:
            refuse("P3", start, f"piece {index}", f"More than {limits.max_tokens} pieces.")
        if len(batch) >= _BATCH:
            tokens.add(batch)
            batch = []
    tokens.add(batch)
    if not len(tokens):
        source.faults.add("P3", 0, "pieces", "The tokenizer has no pieces.")
    twice = tokens.duplicates()
    if twice is not None:
        message = f"The pieces {twice[0]} and {twice[1]} have the same text: llama.cpp would abort."
        source.faults.add("P4", 0, "pieces", message)
    return SetFacts({"tokenizer": "llama", "vocabulary_size": len(tokens)})


def _read_piece(source: Source, length: int, index: int, limits: SentencePieceLimits) -> Steps[bytes]:
    start, shown = source.offset, f"piece {index}"
    if length > limits.max_token_bytes + _PIECE_EXTRA_BYTES:
        refuse("P3", start, shown, f"A piece of {length} bytes; its text has up to {limits.max_token_bytes}.")
    body = yield from source.take(length, shown)
    at, text = 0, b""
    while at < length:
        tag, after = _varint(body, at, start)
        number, kind = _tag(tag, start + at)
        if kind == _VARINT:
            _, at = _varint(body, after, start)
            continue
        size = _FIXED_BYTES.get(kind, 0)
        if kind == _LENGTH:
            size, after = _varint(body, after, start)
        if size > length - after:
            refuse("P2", start + at, shown, f"A field of {size} bytes where {length - after} are left.")
        if number == _TEXT and kind == _LENGTH:
            text = body[after : after + size]
            if size > limits.max_token_bytes:
                message = f"A text of {size} bytes; at most {limits.max_token_bytes}."
                source.faults.add("P3", start + at, shown, message)
            if b"\0" in text:
                source.faults.add("P3", start + at, shown, "The text has a NUL, where llama.cpp cuts it.")
        at = after + size
    return text


def _varint(body: bytes, at: int, start: int) -> tuple[int, int]:  # noqa: RET503 (refuse never returns)
    """The number at `at`, and where it ends."""
    value = 0
    for place, byte in enumerate(body[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80 and value < 1 << 64:
            return value, at + place + 1
    refuse("P2", start + at, "field", "The message ends within a number, or it has more than 64 bits.")


def _tag(tag: int, at: int) -> tuple[int, int]:
    number, kind = tag >> 3, tag & 7
    if not 1 <= number <= _MAX_FIELD or kind not in (_VARINT, _FIXED64, _LENGTH, _FIXED32):
        refuse("P2", at, "field", f"There is no field {number} of wire type {kind}.")
    return number, kind


def _read_varint(source: Source) -> Steps[int]:
    at, value = source.offset, 0
    for place in range(_MAX_VARINT_BYTES):
        if source.offset >= source.size_bytes:
            break
        (byte,) = yield from source.take(1, "field")
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80 and value < 1 << 64:
            return value
    refuse("P2", at, "field", "The message ends within a number, or it has more than 64 bits.")
