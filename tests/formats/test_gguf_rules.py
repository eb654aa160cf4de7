"""Each rule of the GGUF reader: one file that breaks it, and the same file with the one field put right."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ingest_service.formats
from ingest_service.formats.faults import FormatFault
from ingest_service.formats.gguf import GgufLimits, GgufReader
from ingest_service.formats.incremental import State
from ingest_service.vocabulary.reasons import Reason
from tests.formats.build import Gguf, counted, number, text, texts, u32
from tests.formats.gguf_rows import CLIP, ROWS, SHARD, G, Row

IDS = [row.id for row in ROWS]


def fault_of(data: bytes, size_bytes: int, limits: GgufLimits | None = None) -> FormatFault:
    reader = GgufReader(limits or GgufLimits(), size_bytes)
    reader.feed(data)
    assert reader.state is State.FAULT, reader.result
    assert reader.result is None
    assert reader.fault is not None
    return reader.fault


def accepted(data: bytes, size_bytes: int, limits: GgufLimits | None = None) -> GgufReader:
    reader = GgufReader(limits or GgufLimits(), size_bytes)
    reader.feed(data)
    assert reader.state is State.DONE, reader.fault
    return reader


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_it_is_refused_by_its_rule(row: Row) -> None:
    reader = GgufReader(row.limits, row.size_bytes)
    reader.feed(row.bad.header)
    # One defect is one fault: what follows from it is not told as another.
    (fault,) = reader.faults.found
    assert (fault.rule, fault.field) == (row.rule, row.field), fault
    assert 0 <= (fault.offset or 0) <= len(row.bad.header)
    assert fault.message.isprintable()


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_it_is_accepted_when_the_one_field_is_put_right(row: Row) -> None:
    for size_bytes in {row.good.max_size_bytes, row.good.min_size_bytes}:
        accepted(row.good.header, size_bytes, row.limits)


def test_every_rule_has_its_row() -> None:
    room = Path(ingest_service.formats.__file__).parent
    source = "".join(
        path.read_text()
        for path in [*room.glob("gguf/*.py"), *room.glob("templates/*.py"), room / "source.py"]
    )
    rules = set(re.findall(r'"([ACHKMSTV]\d)"', source))
    assert rules == {row.rule for row in ROWS}
    assert not [row for row, times in Counter(IDS).items() if times > 1 and not row.startswith("M2")]


@pytest.mark.extended_unless("H1: magic", "K1: empty key", "A1: empty", "T1", "S1", "V1: no tokens")
@pytest.mark.parametrize("row", ROWS, ids=IDS)
@given(data=st.data())
@settings(max_examples=15)
def test_the_fault_does_not_depend_on_how_the_bytes_come(row: Row, data: st.DataObject) -> None:
    content = row.bad.header
    whole = fault_of(content, row.size_bytes, row.limits)
    step = data.draw(st.integers(1, max(1, min(len(content), 3000))))
    reader = GgufReader(row.limits, row.size_bytes)
    for start in range(0, len(content), step):
        reader.feed(content[start : start + step])
    assert reader.fault is not None
    assert str(reader.fault) == str(whole)


def test_a_fault_is_the_domains_error_with_rule_offset_and_field() -> None:
    bad = G.but({"llama.block_count": u32(0)})
    reader = GgufReader(GgufLimits(), bad.max_size_bytes)
    reader.feed(bad.header)
    error = reader.faults.as_error()
    assert error.reason is Reason.FORMAT_INVALID
    assert error.field == "llama.block_count"
    assert error.metadata["rule"] == "M1"
    assert error.metadata["field"] == "llama.block_count"


@pytest.mark.parametrize(
    ("file", "place"),
    [
        (G.but(version=4), b"\x04\0\0\0"),
        (G.but({"k": texts(["a", "b"])[:-9] + counted(b"b", 2**40)}), counted(b"b", 2**40)),
        (G.but({"llama.block_count": u32(0x7FFF)}), b"\xff\x7f\0\0"),
        (G.but({"general.type": text("imatrix")}), counted(b"imatrix")),
        (G.but({"general.name": text("ab\0c")}), b"\0c"),
    ],
)
def test_the_offset_is_where_the_fault_is(file: Gguf, place: bytes) -> None:
    data = file.header
    fault = fault_of(data, file.max_size_bytes)
    assert data[fault.offset :].startswith(place)


def test_what_a_file_says_of_itself_cannot_forge_the_message() -> None:
    assert FormatFault("A1", 0, "x", "a\x1b[31m\u202eb").message == "a [31m b"
    tensor = G.but(tensors=(G.tensors[0], type(G.tensors[0])("a\n\x1b[2J", (1, 0))))
    assert fault_of(tensor.header, tensor.max_size_bytes).field.isprintable()


@pytest.mark.parametrize("kind", ["adapter", "mmproj", "projector"])
def test_adapters_and_projectors_need_no_vocabulary(kind: str) -> None:
    file = Gguf(pairs={"general.architecture": text("llama"), "general.type": text(kind)})
    accepted(file.header, file.max_size_bytes)
    assert fault_of(file.but({"general.type": None}).header, file.max_size_bytes).rule == "M2"


def test_an_old_projector_says_its_architecture_alone() -> None:
    file = Gguf(pairs={"general.architecture": text("clip")})
    accepted(file.header, file.max_size_bytes)
    older = CLIP.but({"general.type": text("clip-vision")})
    accepted(older.header, older.max_size_bytes)


def test_a_projector_without_a_transformer_has_zeros_where_converters_write_them() -> None:
    """Gemma 4's unified projector; and images of no fixed size, as of dots.ocr."""
    zeros = ("block_count", "feed_forward_length", "attention.head_count", "image_size")
    for part in ("vision", "audio"):
        pairs = {f"clip.{part}.{name}": u32(0) for name in zeros} | {f"clip.has_{part}_encoder": number(7, 1)}
        file = CLIP.but({"clip.projector_type": text("gemma4uv"), **pairs})
        accepted(file.header, file.max_size_bytes)


def test_of_an_encoder_that_is_not_there_nothing_is_read() -> None:
    file = CLIP.but({"clip.has_vision_encoder": number(7, 1), "clip.audio.chunk_size": u32(0)})
    accepted(file.header, file.max_size_bytes)


def test_later_shards_have_nothing_but_the_splits_keys() -> None:
    file = Gguf(pairs=dict(SHARD))
    accepted(file.header, file.max_size_bytes)
    first = file.but({"split.no": number(2, 0)})
    assert fault_of(first.header, first.max_size_bytes).rule == "A1"


def test_a_splits_first_file_may_have_no_tensors() -> None:
    file = G.but({**SHARD, "split.no": number(2, 0)}, tensors=())
    accepted(file.header, file.max_size_bytes)


def test_models_without_attention_have_no_heads() -> None:
    pairs = {key.replace("llama.", "mamba."): value for key, value in G.pairs.items()}
    file = Gguf(pairs={**pairs, "general.architecture": text("mamba")})
    accepted(file.header, file.max_size_bytes)
    for value in (None, u32(0)):
        changed = file.but({"mamba.attention.head_count": value})
        accepted(changed.header, changed.max_size_bytes)


def test_settings_lift_what_they_say() -> None:
    accepted(G.header, G.max_size_bytes + 100, GgufLimits(allow_trailing_bytes=True))
    assert fault_of(G.header, G.min_size_bytes - 1, GgufLimits(allow_trailing_bytes=True)).rule == "S1"
    vocabulary = G.but({"general.type": text("vocab")}, tensors=())
    accepted(vocabulary.header, vocabulary.max_size_bytes, GgufLimits(allow_vocabulary_only=True))
    unsafe = G.but({"tokenizer.chat_template": text("{{ x.__globals__ }}")})
    reader = accepted(unsafe.header, unsafe.max_size_bytes, GgufLimits(refuse_unsafe_templates=False))
    assert reader.result is not None
    assert "__globals__" in reader.result.facts.warnings[0]


def test_a_file_has_so_much_processor_time_and_no_more() -> None:
    seconds = iter(range(0, 10_000, 1))
    limits = GgufLimits(cpu_budget_seconds=10)
    reader = GgufReader(limits, G.max_size_bytes, cpu_clock=lambda: float(next(seconds)))
    for byte in G.header:
        reader.feed(bytes([byte]))
    assert reader.fault is not None
    assert reader.fault.rule == "B1"
    assert reader.offset < len(G.header)
