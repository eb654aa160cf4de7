"""Takes texts out of a large JSON object as it arrives; nothing else of it is kept.

Python's own parser makes objects of everything, 400 MB of 16 MiB, and lets nobody else run meanwhile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection

#: Names within objects, `*` for any place in a list.
Path = tuple[str, ...]

_MARKS = re.compile(rb'["{}\[\],:]')
_TEXT = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
#: All up to the next bracket, whole texts included.
_NO_BRACKET = re.compile(rb'[^"{}\[\]]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"{}\[\]]*+)*+', re.DOTALL)
_WHOLE_TEXT = re.compile(rb'(?:[^"\\]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+')
_MAX_NAME_BYTES = 64


class JsonPicker:
    """`feed` it all pieces, then `end`. Calls `on_text(path, index, text)` for each text at a wanted path:
    `index` is the place in the list that is nearest to it. ValueError: this is no JSON object.

    A text is cut after `max_text_bytes` bytes as they stand in the JSON. What is passed over is checked
    for its brackets only.
    """

    def __init__(
        self, wanted: Collection[Path], on_text: Callable[[Path, int, str], None], max_text_bytes: int
    ) -> None:
        self._wanted = frozenset(wanted)
        self._depths = max(len(path) for path in wanted)
        self._on_text = on_text
        self._max_text_bytes = max_text_bytes
        #: Of the outermost containers: the name that is being read, or `*`; and the place in a list.
        self._path: list[str] = []
        self._index: list[int] = []
        self._depth = 0
        self._name_comes = False
        self._quoted = self._escaped = self._began = self._ended = False
        self._caught: bytearray | None = None
        self._limit_bytes = 0

    def feed(self, data: bytes) -> None:
        """The next piece."""
        if not self._began:
            data = data.lstrip()
            if not data:
                return
            if not data.startswith(b"{"):
                raise ValueError("no object")
            self._began = True
        at = 0
        while at < len(data):
            if self._quoted:
                at = self._in_text(data, at)
            elif self._depth > self._depths:
                at = self._deep(data, at)
            else:
                at = self._between(data, at)

    def end(self) -> None:
        """All of it has come."""
        if not self._began or self._depth or self._quoted:
            raise ValueError("cut short")

    def _in_text(self, data: bytes, at: int) -> int:
        start = at
        if self._escaped:
            self._escaped = False
            at += 1
        found = _TEXT.match(data, at)
        at = found.end() if found else at
        is_end = data[at : at + 1] == b'"'
        if data[at : at + 1] == b"\\":  # its second byte comes with the next piece
            self._escaped = True
            at += 1
        if self._caught is not None:
            room = self._limit_bytes + 1 - len(self._caught)
            self._caught += data[start : min(at, start + room)]
        if is_end:
            self._quoted = False
            self._text_ends()
            at += 1
        return at

    def _deep(self, data: bytes, at: int) -> int:
        """Passes over what is deeper than anything wanted: brackets are counted, and nothing else is done."""
        depth, least = self._depth, self._depths
        while depth > least:
            found = _NO_BRACKET.match(data, at)
            at = found.end() if found else at
            mark = data[at : at + 1]
            if mark in (b"{", b"["):
                depth += 1
            elif mark in (b"}", b"]"):
                depth -= 1
            else:
                # A text that is not all here yet, or the piece's end.
                self._quoted = mark == b'"'
                self._depth = depth
                return at + 1 if mark else at
            at += 1
        self._depth = depth
        self._name_comes = False
        return at

    def _between(self, data: bytes, at: int) -> int:
        found = _MARKS.search(data, at)
        end = found.start() if found else len(data)
        if not self._depth and data[at:end].strip():
            raise ValueError("something follows")
        if found is None:
            return len(data)
        mark = found.group()
        if not self._depth and (mark != b"{" or self._ended):
            raise ValueError("something follows")
        if mark == b'"':
            self._text_begins()
        elif mark in b"{[":
            self._opens(is_list=mark == b"[")
        elif mark in b"}]":
            self._closes()
        elif self._depth <= self._depths:
            self._moves_on(is_comma=mark == b",")
        return end + 1

    def _opens(self, *, is_list: bool) -> None:
        self._depth += 1
        if self._depth <= self._depths:
            self._path.append("*" if is_list else "")
            self._index.append(0)
        self._name_comes = not is_list

    def _closes(self) -> None:
        if self._depth <= self._depths:
            self._path.pop()
            self._index.pop()
        self._depth -= 1
        self._ended = not self._depth
        self._name_comes = False

    def _moves_on(self, *, is_comma: bool) -> None:
        if not is_comma:
            self._name_comes = False
        elif self._path[-1] == "*":
            self._index[-1] += 1
        else:
            self._path[-1] = ""
            self._name_comes = True

    def _text_begins(self) -> None:
        self._quoted = True
        if self._depth > self._depths:
            return
        if self._name_comes:
            self._caught, self._limit_bytes = bytearray(), _MAX_NAME_BYTES
        elif tuple(self._path) in self._wanted:
            self._caught, self._limit_bytes = bytearray(), self._max_text_bytes

    def _text_ends(self) -> None:
        caught, self._caught = self._caught, None
        if caught is None:
            return
        whole = _WHOLE_TEXT.match(caught[: self._limit_bytes])
        raw = whole.group().decode("utf-8", "replace") if whole else ""
        text = str(json.loads(f'"{raw}"', strict=False))
        if self._name_comes:
            # A name that starts with `*` is none that anybody wants.
            self._path[-1] = text if len(caught) <= _MAX_NAME_BYTES and text != "*" else ""
            return
        lists = [index for index, name in zip(self._index, self._path, strict=True) if name == "*"]
        self._on_text(tuple(self._path), lists[-1] if lists else 0, text)
