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


def read_pairs(source: Source, count: int, metadata: Metadata, limits: GgufLimits) -> Steps[None]:
    """All pairs, one after the other, into `metadata`.

    A fault that is raised ends the reading: it is not known then where the next pair begins.
    """
    #: What a key's second value, or the value of a key that is none, is read into: nobody looks at it.
    unused = Metadata(source.faults)
    digests: set[bytes] = set()
    for index in range(count):
        start = source.offset
        key = yield from _read_key(source, f"key {index}")
        if len(key) <= _KNOWN_KEY_BYTES:
            name = key.decode("ascii", "backslashreplace")
            known = name in metadata.values
        else:
            name = key[:_KNOWN_KEY_BYTES].decode("ascii", "backslashreplace")
            digest = blake2b(key, digest_size=16).digest()
            known = digest in digests
            digests.add(digest)
        if known:
            message = f"The key {name} is there twice; programs differ in which one they use."
            source.faults.add_policy("K8", start, name, message)
        value = yield from _read_value(source, name, unused if known else metadata, limits)
        if len(key) <= _KNOWN_KEY_BYTES and not known:
            metadata.values[name] = value
    metadata.is_complete = True


def _read_key(source: Source, field: str) -> Steps[bytes]:
    start = source.offset
    (length,) = _U64.unpack((yield from source.take(8, field)))
    if not 1 <= length <= _MAX_KEY_BYTES or length > source.left:
        message = f"A key has 1 to {_MAX_KEY_BYTES} bytes within the file, not {length}."
        refuse("K1", start, field, message)
    key = yield from source.take(length, field)
    if not (key.isascii() and key.decode("ascii").isprintable()):
        source.faults.add_policy("K2", start + 8, field, f"A key is printable ASCII, not {key[:64]!r}.")
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
        source.faults.add("C2", at, key, "A chat template is a string.")
    if kind == ARRAY:
        return Value(kind, at, (yield from read_array(source, key, metadata, limits)))
    (number,) = struct.unpack("<" + CODES[kind], (yield from source.take(SIZES[kind], key)))
    if kind == BOOL:
        if number > 1:
            metadata.warnings.append(f"{key} is a bool of {number}, which programs read as true")
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
        source.faults.add_policy("C3", start + raw.index(0), key, message)
    yield from source.pieces(length - len(raw), key)
    return _decoded(raw, key, metadata, cut=length > len(raw))


def _read_template(
    source: Source, length: int, key: str, metadata: Metadata, limits: GgufLimits
) -> Steps[None]:
    before = metadata.template_bytes
    metadata.template_bytes += length
    if metadata.template_bytes > limits.max_template_bytes:
        if before <= limits.max_template_bytes:
            message = f"The chat templates have more than {limits.max_template_bytes} bytes together."
            source.faults.add("C2", source.offset - 8, key, message)
        yield from source.pieces(length, key)
        return
    start = source.offset
    raw = yield from source.take(length, key)
    if b"\0" in raw:
        message = "The template has a NUL: llama.cpp reads it only up to there."
        source.faults.add_policy("C3", start + raw.index(0), key, message)
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
