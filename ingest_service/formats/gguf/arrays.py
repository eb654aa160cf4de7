"""Arrays: numbers are passed over, of strings only the lengths are read, of tokens a hash is kept."""

from __future__ import annotations

import struct

from ingest_service.formats.faults import refuse
from ingest_service.formats.gguf.limits import GgufLimits
from ingest_service.formats.gguf.types import ARRAY, BOOL, F64, SIZES, STRING
from ingest_service.formats.gguf.values import ARRAY_HEAD_BYTES, TOKENS, ArrayValue, Metadata, keeps_array
from ingest_service.formats.source import Source, Steps

_HEAD = struct.Struct("<IQ")
_LENGTH = struct.Struct("<Q")
_BITS = b"\0\1"


def read_array(source: Source, key: str, metadata: Metadata, limits: GgufLimits) -> Steps[ArrayValue]:
    """An array of numbers, bools or strings."""
    at = source.offset
    element_type, count = _HEAD.unpack((yield from source.take(_HEAD.size, key)))
    if element_type == ARRAY:
        refuse("K5", at, key, "An array of arrays, which neither llama.cpp nor Ollama reads.")
    if element_type > F64:
        refuse("K5", at, key, f"There is no value type {element_type} for an array's elements.")
    size_bytes = SIZES.get(element_type, _LENGTH.size)
    if count > limits.max_array_elements:
        refuse("K6", at + 4, key, f"An array of {count} elements; at most {limits.max_array_elements}.")
    if count * size_bytes > source.left:
        why = source.shortage(count * size_bytes, source.offset)
        refuse("K6", at + 4, key, f"An array of {count} elements; {why}.")
    head = b""
    if element_type == STRING:
        yield from _read_strings(source, count, key, metadata, limits)
    elif element_type == BOOL:
        head = yield from _read_bools(source, count, key, metadata)
    else:
        if keeps_array(key):
            # Whole elements: the constant is a multiple of every size.
            head = yield from source.take(min(count * size_bytes, ARRAY_HEAD_BYTES), key)
        yield from source.pieces(count * size_bytes - len(head), key)
    return ArrayValue(element_type, count, head)


def _read_bools(source: Source, count: int, key: str, metadata: Metadata) -> Steps[bytes]:
    """The first of them, where they are kept."""
    told = False
    head = bytearray()
    kept = min(count, ARRAY_HEAD_BYTES) if keeps_array(key) else 0
    while count:
        if not source.available:
            yield 1
        window = source.window(count)
        if not told and window.translate(None, _BITS):
            metadata.warnings.append(f"{key} has bools beyond 1, which programs read as true")
            told = True
        head += window[: kept - len(head)]
        source.consume(len(window))
        count -= len(window)
    return bytes(head)


def _read_strings(
    source: Source, count: int, key: str, metadata: Metadata, limits: GgufLimits
) -> Steps[None]:
    tokens = metadata.tokens if key == TOKENS else None
    if tokens is not None and count > limits.max_tokens:
        message = f"A vocabulary of {count} tokens; at most {limits.max_tokens}."
        source.faults.add("V7", source.offset - 8, key, message)
        tokens = None
    most = limits.max_string_bytes
    done = 0
    while done < count:
        at, left = 0, source.left
        # What comes after the limit is not looked at, or the fault would depend on how the bytes were split.
        window = source.window(left)
        end = len(window)
        texts: list[bytes] = []
        wanted = _LENGTH.size
        while done < count and end - at >= 8:
            (length,) = _LENGTH.unpack_from(window, at)
            stop = at + 8 + length
            if length > most or stop > left:
                here = source.offset + at
                why = f"at most {most}" if length > most else source.shortage(length, here + 8)
                refuse("K4", here, key, f"Element {done}: a string of {length} bytes; {why}.")
            if tokens is not None and length > limits.max_token_bytes:
                message = f"Token {done} has {length} bytes; at most {limits.max_token_bytes}."
                source.faults.add("V3", source.offset + at, key, message)
                # The others are counted and passed over.
                tokens.add(texts)
                tokens, texts = None, []
            if stop > end:
                wanted = 8 + length
                break
            if tokens is not None:
                texts.append(window[at + 8 : stop])
            at = stop
            done += 1
        source.consume(at)
        if tokens is not None:
            tokens.add(texts)
        if done == count:
            return
        source.require(wanted, key)
        if tokens is None and wanted > 8:
            # Nothing of it is kept, however long it is.
            yield from source.pieces(wanted, key)
            done += 1
        else:
            yield wanted
