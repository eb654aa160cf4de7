"""Text from outside is made safe to log, store and show (security.md C4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_service.vocabulary.text import clean


@given(st.text(), st.integers(4, 100))
def test_nothing_unsafe_is_left_and_the_limit_holds(text: str, limit: int) -> None:
    result = clean(text, limit)
    assert len(result.encode()) <= limit
    assert all(character.isprintable() for character in result)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("two\nlines\r\n", "two lines"),
        ("\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("right\u202eleft", "right left"),
        ("nul\0byte", "nul byte"),
        ("soft\u00adhyphen", "soft hyphen"),
        ("modèle 模型", "modèle 模型"),
    ],
)
def test_control_characters_become_spaces(text: str, result: str) -> None:
    assert clean(text) == result


def test_long_text_is_cut_with_a_mark_and_between_characters() -> None:
    assert clean("é" * 100, 20) == "é" * 8 + "…"
    assert clean("x" * 10_000_000, 10) == "x" * 7 + "…"
