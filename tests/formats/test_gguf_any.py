"""Whatever the bytes, and however they come: facts or a named fault, within the limits."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_service.formats.gguf import GgufLimits, GgufReader
from ingest_service.formats.incremental import State
from tests.formats.build import (
    F32,
    I32,
    MODEL_PAIRS,
    U8,
    Gguf,
    Tensor,
    array,
    counted,
    numbers,
    text,
    texts,
    u32,
)
from tests.formats.gguf_rows import G

MIB = 1 << 20
FILE = G.file()


def read(data: bytes, size_bytes: int, pieces: Iterator[int] | None = None) -> GgufReader:
    reader = GgufReader(GgufLimits(), size_bytes)
    start = 0
    while start < len(data):
        step = next(pieces) if pieces else len(data)
        reader.feed(data[start : start + step])
        start += step
    return reader


def assert_settled(reader: GgufReader) -> None:
    """A whole file was fed: the reader has made up its mind."""
    if reader.state is State.DONE:
        assert reader.result is not None
        reader.result.facts.as_dict()
    else:
        assert reader.state is State.FAULT
        assert reader.fault is not None
        assert reader.fault.rule[0] in "ACHKMSTV"
        assert reader.fault.message.isprintable()


@given(st.lists(st.integers(1, 200), min_size=1, max_size=50))
def test_any_split_gives_the_same_facts(steps: list[int]) -> None:
    whole = read(FILE, len(FILE))
    pieces = (steps[index % len(steps)] for index in range(len(FILE)))
    split = read(FILE, len(FILE), pieces)
    assert whole.result is not None
    assert split.result == whole.result
    assert split.offset == whole.offset == len(G.header)


@pytest.mark.extended
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_each_byte_changed_gives_facts_or_a_named_fault(flip: int) -> None:
    refused = 0
    for place in range(len(G.header)):
        changed = bytearray(FILE)
        changed[place] ^= flip
        reader = read(bytes(changed), len(FILE))
        assert_settled(reader)
        refused += reader.state is State.FAULT
    # Most bytes are texts, which may say something else.
    assert refused > len(G.header) // 4


@given(st.data())
@settings(max_examples=150)
def test_bytes_changed_put_in_and_taken_away_give_facts_or_a_named_fault(data: st.DataObject) -> None:
    content = bytearray(FILE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(G.header)))
        taken = data.draw(st.integers(0, 9))
        content[place : place + taken] = data.draw(st.binary(max_size=9))
    assert_settled(read(bytes(content), len(content)))


@given(st.binary(max_size=200))
def test_any_bytes_after_the_start_give_a_named_fault(rest: bytes) -> None:
    content = FILE[:24] + rest
    reader = read(content, len(content))
    assert_settled(reader)
    assert reader.state is State.FAULT


@pytest.mark.extended
def test_each_prefix_needs_more_and_each_shorter_file_is_refused() -> None:
    for end in range(len(G.header)):
        reader = read(FILE[:end], len(FILE))
        assert reader.state is State.NEEDS_MORE, (end, reader.fault)
        assert_settled(read(FILE[:end], end))
        assert read(FILE[:end], end).state is State.FAULT


TERA = 1 << 40
START = b"GGUF" + struct.pack("<IQQ", 3, 1, 4096)
KEY = START + counted(b"tokenizer.ggml.tokens")
#: What a file that costs other readers gigabytes or minutes begins with. It has a number that cannot be.
NUMBERS = {
    "64 Mi strings": KEY + array(8, b"", 64 << 20),
    "2^63 strings": KEY + array(8, b"", 2**63),
    "2^61 floats": KEY + array(F32, b"", 2**61),
    "string of 2^63": KEY + text(b"", 2**63),
    "key of 2^63": START + counted(b"", 2**63),
    "template of 2^40": START + counted(b"tokenizer.chat_template") + text(b"", 2**40),
    "arrays 5000 deep": KEY + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000,
}


def repeated(key: bytes, value: bytes) -> bytes:
    """As many pairs as there may be, and as long ones."""
    return START + b"".join(counted(b"%d" % index + key) + value for index in range(4000))


def clip_of_many_tensors() -> bytes:
    tensors = tuple(Tensor(f"{index:063}", (1, 1, 1, 1)) for index in range(65_536))
    return Gguf(pairs={"general.architecture": text("clip")}, tensors=tensors).header


#: And as much of everything as may be.
MUCH: dict[str, Callable[[], bytes]] = {
    "empty tokens": lambda: KEY + array(8, bytes(8 << 18), 1 << 20),
    "small arrays": lambda: repeated(b".head_count", numbers(U8, [7] * 16_000)),
    "long keys": lambda: repeated(b"k" * 16_000, u32(1)),
    "long texts": lambda: repeated(b".rope.scaling.type", text("t" * 16_000)),
    "one string of 16 MiB": lambda: START + counted(b"k") + text(bytes(16 * MIB)),
    "a million tokens": lambda: (
        Gguf(
            pairs={**MODEL_PAIRS, "tokenizer.ggml.tokens": texts([f"{index:x}" for index in range(1 << 20)])}
        ).header
    ),
    "65536 tensors": clip_of_many_tensors,
}


# Tracing makes every allocation slow: beside other work it takes minutes.
@pytest.mark.timeout(900)
@pytest.mark.extended_unless("one string")
@pytest.mark.extended_when("empty tokens", "long keys", "small arrays")
@pytest.mark.extended_when("a million tokens", "65536 tensors")
@pytest.mark.parametrize("name", MUCH)
def test_memory_stays_within_64_mib_whatever_comes(name: str) -> None:
    content = MUCH[name]()
    tracemalloc.start()
    try:
        read(content, TERA, repeat(2 * MIB))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Half of what is promised: a reader that kept one of these would be seen.
    assert peak_bytes < 32 * MIB


@pytest.mark.parametrize("name", NUMBERS)
def test_a_hostile_number_is_refused_where_it_stands(name: str) -> None:
    content = NUMBERS[name]
    tracemalloc.start()
    try:
        # Even where the file says that it is large enough.
        reader = read(content, 100 if name == "64 Mi strings" else TERA)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.fault is not None
    assert reader.fault.rule in {"K1", "K4", "K5", "K6"}
    assert reader.offset <= 100
    assert peak_bytes < MIB


def vocabulary(count: int) -> Gguf:
    """A model with a vocabulary as large as the largest that there are, and as many merges."""
    words = [f"token{index}" for index in range(count)]
    return G.but(
        {
            "tokenizer.ggml.tokens": texts(words),
            "tokenizer.ggml.scores": numbers(F32, [0.0] * count),
            "tokenizer.ggml.token_type": numbers(I32, [1] * count),
            "tokenizer.ggml.merges": texts([f"{word} {word}" for word in words]),
        }
    )


@pytest.mark.extended
def test_a_large_vocabulary_is_read_and_its_one_duplicate_found() -> None:
    file = vocabulary(300_000)
    header = file.header
    reader = read(header, file.max_size_bytes, repeat(MIB))
    assert reader.result is not None
    assert reader.result.facts.vocabulary_size == 300_000
    changed = header.replace(counted(b"token299998"), counted(b"token100007"), 1)
    fault = read(changed, file.max_size_bytes).fault
    assert fault is not None
    assert (fault.rule, "100007 and 299998" in fault.message) == ("V4", True)
