"""What has to be true of every reader, whatever the bytes."""

from __future__ import annotations

import json
import re
import struct
import time
import tracemalloc
import zlib
from typing import Any

from ingest_service.formats.gguf import GgufHeader, GgufLimits, GgufReader
from ingest_service.formats.incremental import IncrementalReader, State
from ingest_service.formats.json_files import JsonLimits, JsonReader
from ingest_service.formats.safetensors import SafetensorsFacts, SafetensorsLimits, SafetensorsReader
from ingest_service.formats.sentencepiece import SentencePieceLimits, SentencePieceReader
from ingest_service.formats.templates.check import check_template
from tests.formats.corpus_files import CORPUS
from tests.formats.gguf_reference import ends

#: Of processor time, for inputs of a few kilobytes; they take a thousandth of it.
MAX_SECONDS = 1.0
MAX_BYTES = 64 << 20
#: Tracing memory makes a run ten times as slow.
_TRACED_ONE_IN = 512
#: What is said of a template, cut at 300 bytes where it has words of the template.
_MAX_WORDS = 400
_DIGITS = re.compile(r"\d+")
_RULE = re.compile(r"[ABCFHJKMPSTV]\d")
#: Also under small limits, so that all of them are met.
_SMALL_JSON = JsonLimits(max_depth=3, max_string_bytes=16, max_members=3, max_config_bytes=400)
_SMALL_GGUF = GgufLimits(max_header_bytes=200, max_string_bytes=16, max_array_elements=4, max_tokens=2)
_SMALL_SAFETENSORS = SafetensorsLimits(max_member_bytes=64, max_tensors=2)
_SMALL_PIECES = SentencePieceLimits(max_tokens=1, max_token_bytes=4)
_NAMES = tuple(CORPUS["json"])


class Broken(AssertionError):
    """A property does not hold."""


def reader_for(kind: str, data: bytes, *, small: bool = False) -> IncrementalReader[Any]:
    """A new one for a file of that content; which JSON file it is, the content decides."""
    size = len(data)
    if kind == "gguf":
        return GgufReader(_SMALL_GGUF if small else GgufLimits(), size)
    if kind == "safetensors":
        return SafetensorsReader(_SMALL_SAFETENSORS if small else SafetensorsLimits(), size)
    if kind == "sentencepiece":
        return SentencePieceReader(_SMALL_PIECES if small else SentencePieceLimits(), size)
    return JsonReader(_SMALL_JSON if small else JsonLimits(), size, name_for(data))


def name_for(data: bytes) -> str:
    """Names that tell the reader what to look for are told by the file's first names."""
    for name, sign in (
        ("config.json", b'"archi'),
        ("added_tokens.json", b'"<pad'),
        ("tokenizer_config.json", b'"chat'),
    ):
        if sign in data[:64]:
            return name
    return _NAMES[zlib.crc32(data[:6]) % len(_NAMES)]


def check(kind: str, data: bytes) -> tuple[str, object]:
    """Raises Broken, or whatever escapes; else the verdict, which is short for all alike inputs."""
    if kind == "template":
        return _check_template(data)
    digest = zlib.crc32(data)
    traced = digest % _TRACED_ONE_IN == 0
    small = digest % 16 < 2
    if traced:
        tracemalloc.start()
    started = time.thread_time()
    try:
        whole = reader_for(kind, data, small=small)
        whole.feed(data)
        split = whole
        if digest % 4 == 0:
            split = reader_for(kind, data, small=small)
            _feed_in_parts(split, data, digest >> 2)
    finally:
        if traced:
            peak_bytes = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    seconds = time.thread_time() - started
    _settled(whole)
    told = [list(map(str, reader.faults.found)) for reader in (split, whole)]
    if told[0] != told[1] or split.result != whole.result:
        raise Broken(f"split: {split.fault or split.result}; whole: {whole.fault or whole.result}")
    if traced and peak_bytes > MAX_BYTES:
        raise Broken(f"{peak_bytes} bytes of memory")
    if not traced and seconds > MAX_SECONDS:
        raise Broken(f"{seconds} s")
    if whole.state is State.DONE:
        _accepted(kind, data, whole.result)
        return "accepted", None
    assert whole.fault is not None
    return whole.fault.rule, _DIGITS.sub("", whole.fault.message)[:40]


def _check_template(data: bytes) -> tuple[str, object]:
    """The verdict comes in time, is the same again, and its words can be shown."""
    text = data.decode("utf-8", "replace")
    started = time.thread_time()
    verdict = check_template(text)
    seconds = time.thread_time() - started
    if seconds > MAX_SECONDS:
        raise Broken(f"{seconds} s")
    if verdict != check_template(text):
        raise Broken("another verdict for the same template")
    words = [*(one.message for one in verdict.refusals), *verdict.warnings]
    if not all(one.isprintable() and len(one) <= _MAX_WORDS for one in words) or any(
        one.rule not in ("C1", "C6") for one in verdict.refusals
    ):
        raise Broken(f"{verdict}")
    if verdict.refusals:
        return verdict.refusals[0].rule, _DIGITS.sub("", verdict.refusals[0].message)[:60]
    return ("warned", _DIGITS.sub("", words[0])[:60]) if words else ("accepted", None)


def _feed_in_parts(reader: IncrementalReader[Any], data: bytes, digest: int) -> None:
    if digest % 32 == 0:
        for byte in data:
            reader.feed(bytes([byte]))
        return
    first = digest % (len(data) + 1)
    second = first + (digest >> 8) % (len(data) + 1 - first)
    for part in (data[:first], data[first:second], data[second:]):
        reader.feed(part)


def _settled(reader: IncrementalReader[Any]) -> None:
    if reader.state is State.NEEDS_MORE:
        raise Broken("the whole file was fed, and there is no verdict")
    if (reader.state is State.DONE) != (reader.result is not None) or (
        (reader.state is State.FAULT) != (reader.fault is not None)
    ):
        raise Broken(f"{reader.state}: {reader.result}, {reader.fault}")
    fault = reader.fault
    if fault is not None:
        shown = fault.message + fault.field
        if not (_RULE.fullmatch(fault.rule) and (fault.offset or 0) >= 0 and shown.isprintable()):
            raise Broken(f"fault {fault!r}")
        reader.faults.as_error()


def _accepted(kind: str, data: bytes, result: object) -> None:
    """What is accepted is so for everyone: worked out by other means."""
    if isinstance(result, GgufHeader):
        json.dumps(result.facts.as_dict())
        extent = result.extent
        if ends(data) != (extent.min_size_bytes, extent.max_size_bytes) or len(data) not in ends(data):
            raise Broken(f"{len(data)} bytes, {extent}, reference {ends(data)}")
    elif isinstance(result, SafetensorsFacts):
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        spans = sorted(v["data_offsets"] for k, v in header.items() if k != "__metadata__")
        joined = [0] + [at for span in spans for at in span] + [len(data) - 8 - length]
        if any(a != b for a, b in zip(joined[::2], joined[1::2], strict=True)):
            raise Broken(f"spans {spans}")
    elif kind == "json":
        json.loads(data.decode("utf-8"))
