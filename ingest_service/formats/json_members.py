"""Cuts one large JSON object into its members as it arrives: only one of them is decoded at a time."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from ingest_service.formats.faults import refuse
from ingest_service.formats.source import Source, Steps

_MAX_DEPTH = 8
_BLANK = b" \t\r\n"
#: What changes the depth, or begins or ends a text; the backslash takes its next byte along.
_MARKS = re.compile(rb'["{}\[\],]|\\')
_IN_TEXT = re.compile(rb'["\\]')
#: No number that a header needs is longer, and Python's own limit is an error of another kind.
_MAX_DIGITS = 20
#: Few members are longer; copying much more for each of many would cost the square of a header.
_WINDOW_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Member:
    """One name and its value; `offset` is the file's byte at which its text begins."""

    name: str
    value: Any
    offset: int


class Members:
    """The members of the object that ends, with spaces or without, at the file's byte `end`."""

    def __init__(self, source: Source, end: int, max_member_bytes: int) -> None:
        self._source = source
        self._end = end
        self._max_bytes = max_member_bytes
        self._done = False
        self._started = False
        self._after_comma = False

    def next(self) -> Steps[Member | None]:
        """The next one, or None after the last."""
        if not self._started:
            yield from self._open()
        if self._done:
            return None
        start = self._source.offset
        text, closing = yield from self._cut()
        if closing:
            self._done = True
            yield from self._finish()
            if not text.strip(_BLANK) and not self._after_comma:
                return None
        self._after_comma = True
        return _decode(text, start)

    def _open(self) -> Steps[None]:
        self._started = True
        at = self._source.offset
        if (yield from self._source.take(1, "header")) != b"{":
            refuse("F1", at, "header", "A header begins with `{`.")

    def _cut(self) -> Steps[tuple[bytes, bool]]:
        """The bytes up to the comma or brace that ends the member, and whether it was the brace."""
        source, start = self._source, self._source.offset
        text = bytearray()
        depth, quoted, skip = 0, False, 0
        while True:
            room = self._end - source.offset
            if room <= 0:
                refuse("F3", start, "header", "The header ends within its JSON object.")
            if not source.available:
                yield 1
            window = source.window(min(room, self._max_bytes + 1 - len(text), _WINDOW_BYTES))
            at = skip
            while at < len(window):
                found = (_IN_TEXT if quoted else _MARKS).search(window, at)
                if found is None:
                    at = len(window)
                    break
                mark, at = found.group(), found.end()
                if mark == b"\\":
                    at += 1
                elif mark == b'"':
                    quoted = not quoted
                elif mark in b"{[":
                    depth += 1
                    if depth >= _MAX_DEPTH:
                        message = f"JSON deeper than {_MAX_DEPTH} levels."
                        refuse("F2", source.offset + at - 1, "header", message)
                elif mark == b"]" or (mark == b"}" and depth):
                    depth -= 1
                elif depth <= 0:
                    self._check_length(len(text) + at - 1, start)
                    text += window[: at - 1]
                    source.consume(at)
                    return bytes(text), mark == b"}"
            text += window
            # An escape at the very end: its second byte comes with the next piece.
            skip = at - len(window)
            source.consume(len(window))
            self._check_length(len(text), start)

    def _check_length(self, length: int, start: int) -> None:
        if length > self._max_bytes:
            refuse("F2", start, "header", f"One entry of the header has more than {self._max_bytes} bytes.")

    def _finish(self) -> Steps[None]:
        """After the object, only spaces may follow."""
        while self._source.offset < self._end:
            if not self._source.available:
                yield 1
            window = self._source.window(self._end - self._source.offset)
            rest = window.lstrip(_BLANK)
            if rest:
                at = self._source.offset + len(window) - len(rest)
                refuse("F3", at, "header", "Something follows the header's JSON object.")
            self._source.consume(len(window))


def read_members(source: Source, end: int, max_member_bytes: int) -> Members:
    """The members of the object that begins at the source's next byte."""
    return Members(source, end, max_member_bytes)


def _decode(text: bytes, start: int) -> Member:
    try:
        # Decoded here: `json` would take UTF-16 too.
        whole = "{" + text.decode("utf-8") + "}"
        pairs = json.loads(
            whole,
            object_pairs_hook=lambda pairs: _unique(pairs, start),
            parse_int=_number,
            parse_constant=_no_constant,
        )
        if "\\u" in whole:
            # Half a surrogate pair is no text, and others refuse it.
            json.dumps(pairs, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        refuse("F3", start, "header", "This entry of the header is no JSON.")
    if len(pairs) != 1:
        refuse("F3", start, "header", "This entry of the header is no name with a value.")
    name, value = next(iter(pairs.items()))
    return Member(name, value, start)


def _unique(pairs: list[tuple[str, Any]], start: int) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        refuse("F4", start, "header", "A name is there twice in one entry of the header.")
    return members


def _number(digits: str) -> int:
    if len(digits) > _MAX_DIGITS or digits == "-0":
        raise ValueError(digits)
    return int(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
