"""The text files of a safetensors set: templates are judged as a GGUF's are, lists of words by their size."""

from __future__ import annotations

import pytest

from ingest_service.formats import FormatLimits, FormatReader, format_for
from ingest_service.formats.json_files import JsonLimits

SMALL = FormatLimits(json=JsonLimits(max_template_bytes=100, max_vocabulary_bytes=100))
ALLOWED = FormatLimits(json=JsonLimits(refuse_unsafe_templates=False))
GOOD = b"{% for m in messages %}{{ m.content }}{% endfor %}"
ESCAPE = b"{{ x.__class__ }}" + b" " * 60


def read(name: str, data: bytes, limits: FormatLimits = SMALL) -> FormatReader:
    reader = FormatReader(name, len(data), limits)
    for start in range(0, len(data), 30):
        reader.feed(data[start : start + 30])
    return reader


@pytest.mark.parametrize(
    ("name", "data", "file_format"),
    [
        ("chat_template.jinja", GOOD, "template"),
        ("Chat_Template.JINJA", b"x", "template"),
        ("tool_use.jinja", b"x" * 100, "template"),
        ("merges.txt", b"#version: 0.2\n" + b"a b\n" * 20, "text"),
        ("vocab.txt", b"[PAD]\n", "text"),
    ],
)
def test_it_is_taken_as_what_its_name_says(name: str, data: bytes, file_format: str) -> None:
    reader = read(name, data)
    assert reader.error is None
    assert reader.inspection is not None
    assert reader.inspection.format == file_format == format_for(name)
    assert len(reader.inspection.warnings) == (file_format == "template"), "that Ollama does not read it"


@pytest.mark.parametrize(
    ("name", "data", "rule"),
    [
        ("chat_template.jinja", ESCAPE, "C1"),
        ("chat_template.jinja", b"{{ " + b"(" * 90, "C6"),
        ("chat_template.jinja", b"x" * 101, "C2"),
        ("chat_template.jinja", b"GGUF" + bytes(60), "H1"),
        ("chat_template.jinja", b"<!DOCTYPE html>" + b" " * 60, "H1"),
        ("merges.txt", b"version https://git-lfs.github.com/spec/v1\n", "H1"),
        ("merges.txt", b"GGUF", "H1"),
        ("vocab.txt", b"x" * 101, "J1"),
        ("notes.txt", b"x" * 64, "H1"),
    ],
)
def test_it_is_refused_by_its_rule(name: str, data: bytes, rule: str) -> None:
    reader = read(name, data)
    assert reader.error is not None
    assert reader.error.metadata["rule"] == rule


def test_what_an_operator_allows_is_a_warning() -> None:
    reader = read("chat_template.jinja", ESCAPE, ALLOWED)
    assert reader.inspection is not None
    assert "__class__" in reader.inspection.warnings[1]


def test_bytes_that_are_no_utf_8_are_a_warning() -> None:
    reader = read("chat_template.jinja", b"{{ x }}\xff" + b" " * 60)
    assert reader.inspection is not None
    assert reader.inspection.warnings[1:] == ("chat_template.jinja: some of it is no UTF-8",)
