"""Each rule of tokenizer.model, by itself and put right."""

from __future__ import annotations

import tracemalloc

import pytest

from ingest_service.formats import FormatLimits, FormatReader
from ingest_service.formats.faults import FormatFault
from ingest_service.formats.incremental import State
from ingest_service.formats.sentencepiece import SentencePieceLimits, SentencePieceReader
from tests.formats.corpus_files import piece

LIMITS = SentencePieceLimits()
SMALL = SentencePieceLimits(max_file_bytes=24, max_tokens=2, max_token_bytes=3)
A, B = piece("a"), piece("b")
SCORE = b"\x15" + bytes(4)


def field(number: int, kind: int, content: bytes = b"") -> bytes:
    return bytes([number << 3 | kind]) + content


def message(body: bytes) -> bytes:
    return b"\x0a" + bytes([len(body)]) + body


def read(data: bytes, limits: SentencePieceLimits = LIMITS, step: int = 1 << 20) -> SentencePieceReader:
    reader = SentencePieceReader(limits, len(data))
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
    return reader


def fault_of(data: bytes, limits: SentencePieceLimits = LIMITS) -> FormatFault:
    fault = read(data, limits).fault
    assert fault is not None
    return fault


ROWS = [
    ("P1", "empty", b"", A, LIMITS),
    ("P1", "limit", A + B + field(9, 0, b"\1"), A + B, SMALL),
    ("P2", "wire type 3", A + field(2, 3), A + field(2, 2, b"\0"), LIMITS),
    ("P2", "wire type 7", A + field(2, 7), A + field(2, 0, b"\0"), LIMITS),
    ("P2", "field 0", A + field(0, 0, b"\0"), A + field(1 << 1, 0, b"\0"), LIMITS),
    ("P2", "length beyond the file", A + field(2, 2, b"\5ab"), A + field(2, 2, b"\2ab"), LIMITS),
    ("P2", "length of 2^63", A + field(2, 2, b"\xff" * 8 + b"\x7f"), A + field(2, 2, b"\0"), LIMITS),
    ("P2", "11 bytes", A + field(9, 0, b"\xff" * 10 + b"\1"), A + field(9, 0, b"\xff" * 9 + b"\1"), LIMITS),
    ("P2", "65 bits", A + field(9, 0, b"\xff" * 9 + b"\2"), A + field(9, 0, b"\xff" * 9 + b"\1"), LIMITS),
    ("P2", "cut in a number", A + field(9, 0, b"\x80"), A + field(9, 0, b"\x80\0"), LIMITS),
    ("P2", "cut in a fixed", A + field(9, 1, bytes(7)), A + field(9, 1, bytes(8)), LIMITS),
    ("P2", "piece is a number", A + field(1, 0, b"\1"), A + B, LIMITS),
    ("P2", "text beyond the piece", message(b"\x0a\x09a"), message(b"\x0a\x01a"), LIMITS),
    ("P2", "score beyond the piece", message(b"\x0a\x01a\x15\0"), message(b"\x0a\x01a" + SCORE), LIMITS),
    ("P2", "group in a piece", message(b"\x0a\x01a\x1b"), message(b"\x0a\x01a\x18\1"), LIMITS),
    ("P2", "number cut in a piece", message(b"\x0a\x01a\x18\x80"), message(b"\x0a\x01a\x18\1"), LIMITS),
    ("P3", "no pieces", field(2, 2, b"\0"), A, LIMITS),
    ("P3", "three pieces", message(b"") * 3, message(b"") * 2, SMALL),
    ("P3", "long text", message(b"\x0a\x04abcd"), message(b"\x0a\x03abc"), SMALL),
    ("P3", "long piece", b"\x0a\xf0\xa2\x04" + bytes(70_000), A, LIMITS),
    ("P3", "NUL", piece("a\0"), piece("a "), LIMITS),
    ("P4", "text twice", A + B + A, A + B, LIMITS),
]


@pytest.mark.parametrize(
    ("rule", "what", "bad", "good", "limits"), ROWS, ids=[f"{r[0]}: {r[1]}" for r in ROWS]
)
def test_it_is_refused_by_its_rule_and_accepted_when_put_right(
    rule: str, what: str, bad: bytes, good: bytes, limits: SentencePieceLimits
) -> None:
    if rule == "P2" and what == "length of 2^63":
        # Its size says that there is room for it.
        reader = SentencePieceReader(LIMITS, 60 << 20)
        reader.feed(bad)
        assert reader.fault is not None
        assert reader.fault.rule == rule
    fault = fault_of(bad, limits)
    assert fault.rule == rule, fault
    assert 0 <= (fault.offset or 0) <= len(bad)
    assert str(read(bad, limits, step=1).fault) == str(fault)
    assert read(good, limits).state is State.DONE, read(good, limits).fault
    assert read(good, limits, step=1).state is State.DONE


def test_its_facts() -> None:
    reader = FormatReader("tokenizer.model", len(A + B), FormatLimits())
    reader.feed(A + B)
    assert reader.inspection is not None
    assert reader.inspection.format == "tokenizer"
    assert reader.inspection.facts == {"tokenizer": "llama", "vocabulary_size": 2}


@pytest.mark.extended
def test_memory_stays_small() -> None:
    data = b"".join(piece(f"t{index}") for index in range(3000)) + b"\x12\x80\x80\x80\x01" + bytes(2 << 20)
    tracemalloc.start()
    try:
        reader = read(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.state is State.DONE, reader.fault
    assert peak_bytes < 2 << 20


def test_defects_of_several_pieces_are_told_together() -> None:
    data = A + piece("a\0") + A + piece("long") + B
    limits = SentencePieceLimits(max_token_bytes=3)
    for step in (1, 1 << 20):
        found = read(data, limits, step).faults.found
        assert [(fault.rule, fault.field) for fault in found] == [
            ("P3", "piece 1"),
            ("P3", "piece 3"),
            ("P4", "pieces"),
        ]
