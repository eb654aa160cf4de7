"""Texts out of a JSON object that arrives in pieces: the same as json.loads finds, wherever it is split.

Breaks when: a split within a text, an escape or a name changes what is found, a deeper name counts, or what
is no object is taken.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingest_service.forwarding.json_picker import JsonPicker

_OBJECT = {
    "a": 'x "quoted" \\ {[ \n é 😀',
    "deep": {"a": "no", "list": [[{"a": "no"}], "]}", {"b\\": '"'}]},
    "list": [{"name": "one", "n": [1, {}]}, {"name": "two\\", "x": {"name": "no"}}, {}, {"name": "four"}],
    "empty": {},
    "b": "end",
    "number": -1.5e3,
}
_WANTED = [("a",), ("b",), ("list", "*", "name")]


def picked(body: bytes, step: int, wanted: Any = _WANTED, most: int = 1000) -> list[tuple[str, int, str]]:
    found: list[tuple[str, int, str]] = []
    picker = JsonPicker(wanted, lambda path, index, text: found.append((path[-1], index, text)), most)
    for start in range(0, len(body), step):
        picker.feed(body[start : start + step])
    picker.end()
    return found


@pytest.mark.parametrize("step", [1, 2, 3, 7, 4096])
@pytest.mark.parametrize("is_ascii", [True, False])
def test_the_same_wherever_it_is_split(step: int, is_ascii: bool) -> None:
    body = json.dumps(_OBJECT, ensure_ascii=is_ascii, indent=1).encode()
    assert picked(body, step) == [
        ("a", 0, _OBJECT["a"]),
        ("name", 0, "one"),
        ("name", 1, "two\\"),
        ("name", 3, "four"),
        ("b", 0, "end"),
    ]
    assert picked(body, step, [("b",)]) == [("b", 0, "end")]


@pytest.mark.parametrize("step", [1, 4096])
def test_a_long_text_is_cut_between_two_characters(step: int) -> None:
    assert picked(json.dumps({"a": "0123\n6"}).encode(), step, [("a",)], 5) == [("a", 0, "0123")]


@pytest.mark.parametrize("step", [1, 4096])
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"1", b"<html>", b'{"a":', b'{"a":"b', b"{}{}", b"{} x", b'{"a":[}']
)
def test_what_is_no_object(body: bytes, step: int) -> None:
    with pytest.raises(ValueError, match=r"no object|cut short|something follows"):
        picked(body, step)
