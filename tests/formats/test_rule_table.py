"""docs/formats.md names every rule there is in the code, and every rule has a row in a table test."""

from __future__ import annotations

import re
from pathlib import Path

import ingest_service
from tests.formats import gguf_rows, test_json_files, test_safetensors, test_sentencepiece

_HOUSE = Path(ingest_service.__file__).parent
_DOCS = _HOUSE.parent / "docs" / "formats.md"
_RULE = re.compile(r'"([ABCFHJKMPSTVX]\d)"')
#: Tried where a clock (test_gguf_rules.py) or a request (tests/ingests) can be made up.
_ELSEWHERE = {"B1", "X1", "X2", "X3", "X4", "X5"}


def in_code() -> set[str]:
    paths = [*(_HOUSE / "formats").rglob("*.py"), _HOUSE / "ingests" / "agreement.py"]
    return {rule for path in paths for rule in _RULE.findall(path.read_text(encoding="utf-8"))}


def documented() -> list[tuple[str, ...]]:
    table = _DOCS.read_text(encoding="utf-8").partition("<!-- rules")[2].partition("<!-- end of rules")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if re.match(r"\| [A-Z]\d \|", line)]
    return [tuple(cell.strip() for cell in row) for row in rows]


def test_the_page_names_every_rule_once_and_none_that_is_not_there() -> None:
    names = [row[0] for row in documented()]
    assert len(names) == len(set(names))
    assert set(names) == in_code()
    assert all(len(row) == 4 and row[1] and row[3] for row in documented())


def test_every_rule_is_tried_by_a_file_that_breaks_it() -> None:
    tried = {row.rule for row in gguf_rows.ROWS}
    for module in (test_safetensors, test_json_files, test_sentencepiece):
        tried |= {row[0] for row in module.ROWS}
    assert tried | _ELSEWHERE == in_code()
    tests = _HOUSE.parent / "tests"
    elsewhere = "".join(
        path.read_text(encoding="utf-8")
        for path in [tests / "formats" / "test_gguf_rules.py", *(tests / "ingests").glob("*.py")]
    )
    assert {rule for rule in _ELSEWHERE if f'"{rule}"' not in elsewhere} == set()
