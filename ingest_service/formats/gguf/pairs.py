"""The key-value pairs: rules K, and C2 and C3 for texts as they pass."""

from __future__ import annotations

import struct
from hashlib import blake2b

from ingest_service.formats.faults import refuse
from ingest_service.formats.gguf.arrays import read_array
from ingest_service.formats.gguf.limits import GgufLimits
from ingest_service.formats.gguf.types import ARRAY, BOOL, CODES, F64, SIZES, STRING
from ingest_service.formats.gguf.values import TEMPLATE, TEXT_BYTES, Metadata, Value, is_template, keeps_text
from ingest_service.formats.source import Source, Steps

_MAX_KEY_BYTES = 65_535
#: No program has a longer one; of longer ones only a digest is kept, to find duplicates.
_KNOWN_KEY_BYTES = 256
_U64 = struct.Struct("<Q")
_U32 = struct.Struct("<I")


def read_pairs(source: Source, count: int, limits: GgufLimits) -> Steps[Metadata]:
    """All pairs, one after the other."""
    metadata = Metadata()
    digests: set[bytes] = set()
    for index in range(count):
        start = source.offset
        key = yield from _read_key(source, f"key {index}")
        if len(key) <= _KNOWN_KEY_BYTES:
            name, known = key.decode("ascii"), key.decode("ascii") in metadata.values
        else:
            name, digest = key[:_KNOWN_KEY_BYTES].decode("ascii"), blake2b(key, digest_size=16).digest()
            known = digest in digests
            digests.add(digest)
        if known:
            refuse(
                "K8", start, name, f"The key {name} is there twice; programs differ in which one they use."
            )
        value = yield from _read_value(source, name, metadata, limits)
        if len(key) <= _KNOWN_KEY_BYTES:
            metadata.values[name] = value
    return metadata


def _read_key(source: Source, field: str) -> Steps[bytes]:
    start = source.offset
    (length,) = _U64.unpack((yield from source.take(8, field)))
    if not 1 <= length <= _MAX_KEY_BYTES or length > source.left:
        message = f"A key has 1 to {_MAX_KEY_BYTES} bytes within the file, not {length}."
        refuse("K1", start, field, message)
    key = yield from source.take(length, field)
    if not (key.isascii() and key.decode("ascii").isprintable()):
        refuse("K2", start + 8, field, f"A key is printable ASCII, not {key[:64]!r}.")
    return key


def _read_value(source: Source, key: str, metadata: Metadata, limits: GgufLimits) -> Steps[Value]:
    start = source.offset
    (kind,) = _U32.unpack((yield from source.take(4, key)))
    if kind > F64:
        refuse("K3", start, key, f"There is no value type {kind}.")
    at = source.offset
    if kind == STRING:
        return Value(kind, at, (yield from _read_text(source, key, metadata, limits)))
    if is_template(key):
        refuse("C2", at, key, "A chat template is a string.")
    if kind == ARRAY:
        return Value(kind, at, (yield from read_array(source, key, metadata, limits)))
    (number,) = struct.unpack("<" + CODES[kind], (yield from source.take(SIZES[kind], key)))
    if kind == BOOL:
        if number > 1:
            refuse("K7", at, key, f"A bool is 0 or 1, not {number}.")
        number = bool(number)
    return Value(kind, at, number)


def _read_text(source: Source, key: str, metadata: Metadata, limits: GgufLimits) -> Steps[str | None]:
    at = source.offset
    (length,) = _U64.unpack((yield from source.take(8, key)))
    check_string_length(source, length, at, key, limits)
    if is_template(key):
        yield from _read_template(source, length, key, metadata, limits)
        return None
    if not keeps_text(key):
        yield from source.pieces(length, key)
        return None
    start = source.offset
    raw = yield from source.take(min(length, TEXT_BYTES), key)
    if b"\0" in raw:
        message = "The text has a NUL: llama.cpp reads it up to there, Ollama beyond."
        refuse("C3", start + raw.index(0), key, message)
    yield from source.pieces(length - len(raw), key)
    return _decoded(raw, key, metadata, cut=length > len(raw))


def _read_template(
    source: Source, length: int, key: str, metadata: Metadata, limits: GgufLimits
) -> Steps[None]:
    metadata.template_bytes += length
    if metadata.template_bytes > limits.max_template_bytes:
        message = f"The chat templates have more than {limits.max_template_bytes} bytes together."
        refuse("C2", source.offset - 8, key, message)
    start = source.offset
    raw = yield from source.take(length, key)
    if b"\0" in raw:
        refuse(
            "C3", start + raw.index(0), key, "The template has a NUL: llama.cpp reads it only up to there."
        )
    variant = key[len(TEMPLATE) + 1 :]
    metadata.templates[variant] = _decoded(raw, key, metadata, cut=False)


def _decoded(raw: bytes, key: str, metadata: Metadata, *, cut: bool) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        # A cut may go through the last character.
        if not (cut and error.start > len(raw) - 4):
            metadata.warnings.append(f"{key} is not UTF-8")
        return raw.decode("utf-8", "ignore" if cut else "replace")


def check_string_length(source: Source, length: int, at: int, key: str, limits: GgufLimits) -> None:
    """K4: against the limit and against what can still come, before anything is read."""
    if length > limits.max_string_bytes or length > source.left:
        most = limits.max_string_bytes
        why = f"at most {most}" if length > most else source.shortage(length, source.offset)
        refuse("K4", at, key, f"A string of {length} bytes; {why}.")
