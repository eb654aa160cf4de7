"""Each rule of the safetensors reader, and that whatever comes is facts or a named fault."""

from __future__ import annotations

import json
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_service.formats.faults import FormatFault
from ingest_service.formats.incremental import State
from ingest_service.formats.safetensors import SafetensorsFacts, SafetensorsLimits, SafetensorsReader
from tests.formats.build import safetensors

LIMITS = SafetensorsLimits()
GOOD: dict[str, Any] = {
    "__metadata__": {"format": "pt", "note": 'a "quoted" \\ brace } and [ bracket'},
    "b": {"dtype": "F32", "shape": [2, 2], "data_offsets": [8, 24]},
    "a": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]},
    "scalar": {"dtype": "I8", "shape": [], "data_offsets": [24, 25]},
}
FILE = safetensors(GOOD, 25, padding=7)
A = '"dtype":"U8","shape":[4],"data_offsets":[0,4]'


def one(entry: str, name: str = '"a"', data_bytes: int = 4) -> bytes:
    return safetensors(f"{{{name}:{entry}}}".encode(), data_bytes)


def changed(data_bytes: int = 4, **fields: object) -> bytes:
    entry = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4], **fields}
    return safetensors({"a": {k: v for k, v in entry.items() if v is not None}}, data_bytes)


def read(data: bytes, limits: SafetensorsLimits = LIMITS, step: int = 1 << 21) -> SafetensorsReader:
    reader = SafetensorsReader(limits, len(data))
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
    return reader


def fault_of(data: bytes, limits: SafetensorsLimits = LIMITS) -> FormatFault:
    reader = read(data, limits)
    assert reader.state is State.FAULT, reader.result
    assert reader.fault is not None
    return reader.fault


SMALL = SafetensorsLimits(max_header_bytes=50)
FEW = SafetensorsLimits(max_tensors=1)
U4 = changed()
#: Exactly as long as the one tensor of that file.
SHORT = SafetensorsLimits(max_member_bytes=len(U4) - len(b"12345678{}1234"))
#: Rule, what, the file that breaks it, the same file put right, limits.
ROWS = [
    ("F5", "metadata like a tensor", one(f'{{{A}}},"__metadata__":{{"DType":"F32"}}'), U4, LIMITS),
    ("F6", "no elements", one(f'{{{A}}},"b":{{"dtype":"U8","shape":[0],"data_offsets":[4,4]}}'), U4, LIMITS),
    ("F1", "nine bytes", safetensors(b"{", 0), safetensors(b"{}", 0), LIMITS),
    ("F1", "array", safetensors(b"[]", 0), safetensors(b"{}", 0), LIMITS),
    ("F1", "space first", safetensors(b" {}", 0), safetensors(b"{} ", 0), LIMITS),
    ("F2", "2^64 - 1", safetensors(b"{}", 0, 2**64 - 1), safetensors(b"{}", 0), LIMITS),
    ("F2", "0", safetensors(b"{}", 0, 0), safetensors(b"{}", 0), LIMITS),
    ("F2", "beyond the file", safetensors(b"{}", 0, 3), safetensors(b"{}", 0), LIMITS),
    ("F2", "limit", safetensors(b"{}", 0, padding=49), safetensors(b"{}", 0, padding=48), SMALL),
    ("F2", "two tensors", one(f'{{{A}}},"b":{{"dtype":"U8","shape":[0],"data_offsets":[4,4]}}'), U4, FEW),
    ("F2", "long member", safetensors(U4[8:-4].replace(b"{", b"{ ", 1), 4), U4, SHORT),
    ("F2", "deep", one("[" * 8 + "]" * 8, '"__metadata__"', 0), safetensors(b"{}", 0), LIMITS),
    ("F3", "no JSON", one(f"{{{A},}}"), U4, LIMITS),
    ("F3", "a comma more", safetensors(f'{{"a":{{{A}}},}}'.encode(), 4), U4, LIMITS),
    ("F3", "after the object", safetensors(b"{} x", 0), safetensors(b"{}  ", 0), LIMITS),
    ("F3", "not ended", safetensors(b'{"a', 0), safetensors(b"{} ", 0), LIMITS),
    ("F3", "not UTF-8", one(f"{{{A}}}").replace(b'"a"', b'"\xff"'), U4, LIMITS),
    ("F3", "UTF-16", safetensors("{}".encode("utf-16-le")[:3] + b"\0}", 0), safetensors(b"{}", 0), LIMITS),
    ("F3", "half a pair", one(f"{{{A}}}", '"\\ud800"'), one(f"{{{A}}}", '"\\u0061"'), LIMITS),
    ("F3", "NaN", one("NaN"), U4, LIMITS),
    ("F3", "5000 digits", one(f"{{{A}}}".replace("[4]", "[" + "4" * 5000 + "]")), U4, LIMITS),
    ("F3", "-0", one(f"{{{A}}}".replace("[0,", "[-0,")), U4, LIMITS),
    ("F4", "name twice", one(f'{{{A}}},"a":{{{A}}}'), one(f"{{{A}}}"), LIMITS),
    ("F4", "dtype twice", one(f'{{"dtype":"U8",{A}}}'), one(f"{{{A}}}"), LIMITS),
    ("F4", "name spelt otherwise", one(f'{{{A}}},"\\u0061":{{{A}}}'), one(f"{{{A}}}"), LIMITS),
    ("F5", "number", one('{"a":1}', '"__metadata__"', 0), one('{"a":"1"}', '"__metadata__"', 0), LIMITS),
    ("F5", "text", one('"a"', '"__metadata__"', 0), one("{}", '"__metadata__"', 0), LIMITS),
    ("F5", "empty name", one(f"{{{A}}}", '""'), U4, LIMITS),
    ("F5", "NUL", one(f"{{{A}}}", '"a\\u0000"'), U4, LIMITS),
    ("F5", "513 letters", one(f"{{{A}}}", f'"{"a" * 513}"'), one(f"{{{A}}}", f'"{"a" * 512}"'), LIMITS),
    ("F6", "no dtype", changed(dtype=None), U4, LIMITS),
    ("F6", "no offsets", changed(data_offsets=None), U4, LIMITS),
    ("F6", "one key more", changed(more=1), U4, LIMITS),
    ("F6", "unknown dtype", changed(dtype="U9"), U4, LIMITS),
    ("F6", "dtype list", changed(dtype=["U8"]), U4, LIMITS),
    ("F6", "dtype number", changed(dtype=8), U4, LIMITS),
    ("F6", "shape number", changed(shape=4), U4, LIMITS),
    ("F6", "shape below 0", changed(shape=[-4]), U4, LIMITS),
    ("F6", "shape of floats", changed(shape=[4.0]), U4, LIMITS),
    ("F6", "9 dimensions", changed(shape=[1] * 8 + [4]), changed(shape=[1] * 7 + [4]), LIMITS),
    ("F6", "no object", one("4"), U4, LIMITS),
    ("F7", "inverted", changed(data_offsets=[4, 0]), U4, LIMITS),
    ("F7", "one", changed(data_offsets=[0]), U4, LIMITS),
    ("F7", "three", changed(data_offsets=[0, 4, 4]), U4, LIMITS),
    ("F7", "true", changed(1, data_offsets=[0, True], shape=[]),
     changed(1, data_offsets=[0, 1], shape=[]), LIMITS),
    ("F7", "null", one(f"{{{A}}}".replace("[0,4]", "null")), U4, LIMITS),
    ("F8", "five elements", changed(shape=[5]), U4, LIMITS),
    ("F8", "wraps to 4", changed(shape=[2**62, 4, 4]), U4, LIMITS),
    ("F8", "half a byte", changed(dtype="F4", shape=[7]), changed(dtype="F4", shape=[8]), LIMITS),
    ("F9", "hole before", changed(8, data_offsets=[4, 8]), U4, LIMITS),
    ("F9", "overlap", one(f'{{{A}}},"b":{{{A}}}'), U4, LIMITS),
    ("F9", "cut short", changed(3), U4, LIMITS),
    ("F9", "bytes more", changed(5), U4, LIMITS),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "bad", "good", "limits"), [(r[0], *r[2:]) for r in ROWS], ids=[
    f"{row[0]}: {row[1]}" for row in ROWS
])  # fmt: skip
def test_it_is_refused_by_its_rule_and_accepted_when_put_right(
    rule: str, bad: bytes, good: bytes, limits: SafetensorsLimits
) -> None:
    fault = fault_of(bad, limits)
    assert fault.rule == rule, fault
    assert fault.message.isprintable()
    assert fault.field.isprintable()
    assert 0 <= (fault.offset or 0) <= len(bad)
    slow = read(bad, limits, step=1)
    assert str(slow.fault) == str(fault)
    reader = read(good, limits)
    assert reader.state is State.DONE, reader.fault


def test_what_a_sound_header_says() -> None:
    reader = read(FILE)
    assert reader.result == SafetensorsFacts(
        header_bytes=len(FILE) - 25,
        tensor_count=3,
        parameter_count=9,
        types={"BF16": 4, "F32": 4, "I8": 1},
    )


@given(st.integers(1, 300))
def test_any_split_gives_the_same_facts(step: int) -> None:
    assert read(FILE, step=step).result == read(FILE).result is not None


def assert_settled(reader: SafetensorsReader) -> None:
    assert (reader.state is State.DONE) == (reader.result is not None)
    assert (reader.state is State.FAULT) == (reader.fault is not None)
    assert reader.state is not State.NEEDS_MORE
    assert reader.fault is None or reader.fault.rule.startswith("F")


@pytest.mark.parametrize("flip", [0x01, 0x04, 0x80, 0xFF])
def test_each_byte_changed_gives_facts_or_a_named_fault(flip: int) -> None:
    for place in range(len(FILE) - 25):
        content = bytearray(FILE)
        content[place] ^= flip
        assert_settled(read(bytes(content)))


@pytest.mark.extended
@given(st.data())
@settings(max_examples=300)
def test_any_edits_give_facts_or_a_named_fault(data: st.DataObject) -> None:
    content = bytearray(FILE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(8, len(FILE) - 25))
        content[place : place + data.draw(st.integers(0, 9))] = data.draw(
            st.one_of(st.binary(max_size=9), st.sampled_from([b'"', b"{", b"}", b",", b"\\", b"[", b"null"]))
        )
    content[:8] = struct.pack("<Q", data.draw(st.integers(len(content) - 30, len(content) - 8)))
    whole, slow = read(bytes(content)), read(bytes(content), step=1)
    assert_settled(whole)
    assert str(whole.fault) == str(slow.fault)
    assert whole.result == slow.result


@pytest.mark.extended_unless("spaces")
@pytest.mark.parametrize(
    "header",
    [
        {f"{i:0400}": {"dtype": "U8", "shape": [1] * 8, "data_offsets": [i, i + 1]} for i in range(20_000)},
        {"__metadata__": {f"{i}": "" for i in range(80_000)}},
        b'{"a":' + b" " * (30 << 20) + b"}",
    ],
    ids=["tensors", "metadata", "spaces"],
)
def test_memory_stays_within_64_mib_whatever_comes(header: dict[str, Any] | bytes) -> None:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    # A byte for each tensor, where there are any.
    data = safetensors(content, 20_000)
    tracemalloc.start()
    try:
        reader = read(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert_settled(reader)
    assert peak_bytes < 32 << 20
