"""Passes over one JSON text as it arrives, by RFC 8259 to the letter, and keeps next to nothing of it.

A vocabulary has a million tokens: what is flat is passed over by one regular expression at a time, the rest
token by token. A window never has more than the longest string that is allowed, or the fault would depend on
how the bytes were split.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import NoReturn

from ingest_service.formats.faults import refuse
from ingest_service.formats.source import Source, Steps

_RUN_BYTES = 64 << 10
_FIRST_RUN_BYTES = 256
_PEEK_BYTES = 64
_MAX_WORD_BYTES = 128
_NUMBER_TEXT = rb"-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]++)?+"
_STRING_TEXT = rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+'
_WS = rb"[ \t\r\n]*+"
#: A number is one only if something follows that ends it; its length is checked by the same.
_SCALAR = (
    rb"(?:" + _STRING_TEXT + rb'"|true|false|null|(?=[-0-9.eE+]{1,127}+[ \t\r\n,\]}])' + _NUMBER_TEXT + rb")"
)
_FLAT_LIST = rb"\[" + _WS + _SCALAR + rb"(?:" + _WS + rb"," + _WS + _SCALAR + rb")*+" + _WS + rb"\]"
_BLANK = re.compile(_WS)
_STRING = re.compile(_STRING_TEXT)
_NUMBER = re.compile(_NUMBER_TEXT)
_WORD = re.compile(rb'[^ \t\r\n"{}\[\],:]{0,128}')
#: Members and elements of which each is ended by a comma.
_MEMBERS = re.compile(
    rb"(?:" + _WS + _STRING_TEXT + rb'"' + _WS + rb":" + _WS + _SCALAR + _WS + rb"," + rb")*+"
)
_SCALARS = re.compile(rb"(?:" + _WS + _SCALAR + _WS + rb"," + rb")*+")
_ELEMENTS = re.compile(rb"(?:" + _WS + rb"(?:" + _SCALAR + rb"|" + _FLAT_LIST + rb")" + _WS + rb"," + rb")*+")
_LITERALS = (b"true", b"false", b"null")
#: What Python's writers make of floats; Ollama reads 0 instead, in config.json.
_NOT_FINITE = (b"NaN", b"Infinity", b"-Infinity")


@dataclass(frozen=True, slots=True)
class ScanRules:
    """What one text may be."""

    max_depth: int
    max_string_bytes: int
    #: The outermost object's names are looked at, for duplicates; this many there may be. None: they are not.
    max_members: int | None = None
    #: Those whose values are kept, as text.
    wanted: frozenset[str] = frozenset()
    #: The whole text is kept.
    keep_all: bool = False
    allow_not_finite: bool = False


class Scan:
    """One pass over the source, to the file's end."""

    def __init__(self, source: Source, rules: ScanRules) -> None:
        self.kept: dict[str, tuple[int, bytes]] = {}
        self.text = bytearray()
        self.is_object = False
        self._source = source
        self._rules = rules
        self._stack = bytearray()
        self._run_bytes = _FIRST_RUN_BYTES
        self._names: set[bytes] = set()
        self._catch: tuple[str, int, bytearray] | None = None
        self._steps: dict[str, Callable[[], Steps[str]]] = {
            "value": self._value,
            "element": self._element,
            "name": self._name,
            "comma": self._comma,
        }

    def run(self) -> Steps[None]:
        """Returns at the end of a sound text."""
        self.is_object = (yield from self._peek()) == b"{"
        following = "value"
        while following:
            following = yield from self._steps[following]()
        while (yield from self._peek()):
            self._no_json("Something follows the JSON text.")

    # What can come next. Each returns what comes after it; nothing, after the outermost value.

    def _value(self) -> Steps[str]:
        mark = yield from self._peek()
        if mark in (b"{", b"["):
            if len(self._stack) >= self._rules.max_depth:
                self._refuse("J2", f"JSON deeper than {self._rules.max_depth} levels.")
            self._stack += mark
            self._take(1)
            closing = b"}" if mark == b"{" else b"]"
            if (yield from self._peek()) == closing:
                return self._close()
            return "name" if mark == b"{" else "element"
        if mark == b'"':
            self._take((yield from self._string()))
        else:
            yield from self._word()
        return self._after()

    def _element(self) -> Steps[str]:
        deepest = len(self._stack) >= self._rules.max_depth
        run = _SCALARS if deepest else _ELEMENTS
        # Objects are no part of a run; not trying saves a copy of the window for each.
        if (yield from self._peek()) != b"{" and (yield from self._pass(run)):
            return "element"
        return (yield from self._value())

    def _name(self) -> Steps[str]:
        outermost = len(self._stack) == 1 and self._rules.max_members is not None
        if not outermost and (yield from self._pass(_MEMBERS)):
            return "name"
        if (yield from self._peek()) != b'"':
            self._no_json("A member begins with its name.")
        length = yield from self._string()
        at, text = self._source.offset, self._source.window(length) if outermost else b""
        self._take(length)
        if (yield from self._peek()) != b":":
            self._no_json("After a member's name comes a colon.")
        self._take(1)
        if outermost:
            yield from self._peek()
            self._notice(text, at)
        return "value"

    def _comma(self) -> Steps[str]:
        mark, inside = (yield from self._peek()), self._stack[-1:]
        if mark == b",":
            if self._catch and len(self._stack) == 1:
                self._caught()
            self._take(1)
            return "name" if inside == b"{" else "element"
        if mark == (b"}" if inside == b"{" else b"]"):
            return self._close()
        self._no_json("Here comes neither a comma nor the end." if mark else "The JSON text is cut short.")

    def _close(self) -> str:
        if self._catch and len(self._stack) == 1:
            self._caught()
        self._stack.pop()
        self._take(1)
        return self._after()

    def _after(self) -> str:
        return "comma" if self._stack else ""

    # Tokens.

    def _peek(self) -> Steps[bytes]:
        """The next byte that is no space, or nothing at the file's end."""
        source = self._source
        while True:
            if not source.available:
                if source.offset >= source.size_bytes:
                    return b""
                yield 1
            window = source.window(min(_PEEK_BYTES, source.size_bytes - source.offset))
            blank = _BLANK.match(window)
            end = blank.end() if blank else 0
            if end:
                self._take(end)
            if end < len(window):
                return window[end : end + 1]

    def _string(self) -> Steps[int]:
        """The length of the string that begins here."""
        source = self._source
        left = min(self._rules.max_string_bytes + 2, source.size_bytes - source.offset)
        size = 256
        while True:
            size = min(size, left)
            window = source.window(size)
            found = _STRING.match(window)
            end = found.end() if found else 0
            if window[end : end + 1] == b'"':
                return end + 1
            # An escape may be cut off.
            if end < len(window) and not (window[end] == 0x5C and len(window) - end < 6):
                source.consume(end)
                self._no_json("A string has a control character or an unknown escape.")
            if len(window) < size:
                yield size
            elif size < left:
                size *= 2
            elif left > self._rules.max_string_bytes + 1:
                self._refuse("J2", f"A string of more than {self._rules.max_string_bytes} bytes.")
            else:
                self._no_json("The JSON text is cut short.")

    def _word(self) -> Steps[None]:
        """A number, or true, false or null."""
        source = self._source
        while True:
            left = source.size_bytes - source.offset
            window = source.window(min(_MAX_WORD_BYTES, left))
            found = _WORD.match(window)
            word = found.group() if found else b""
            if len(word) < len(window) or len(window) in (left, _MAX_WORD_BYTES):
                break
            yield len(window) + 1
        known = word in _LITERALS or (self._rules.allow_not_finite and word in _NOT_FINITE)
        if not known and (len(word) >= _MAX_WORD_BYTES or not _NUMBER.fullmatch(word)):
            self._no_json("This is no JSON value." if word else "A value is missing.")
        self._take(len(word))

    def _pass(self, run: re.Pattern[bytes]) -> Steps[bool]:
        """Passes over all that is flat and already here; whether there was anything."""
        source = self._source
        if not (yield from self._peek()):
            return False
        most = min(self._run_bytes, self._rules.max_string_bytes, source.size_bytes - source.offset)
        found = run.match(source.window(most))
        count = found.end() if found else 0
        # Where little is flat, much must not be copied for each try.
        self._run_bytes = min(4 * self._run_bytes, _RUN_BYTES) if count > most // 2 else _FIRST_RUN_BYTES
        if not count:
            return False
        self._take(count)
        return True

    def _take(self, count: int) -> None:
        """What was found to be sound is behind us."""
        text = self._source.window(count)
        if not text.isascii():
            try:
                text.decode("utf-8")
            except UnicodeDecodeError as error:
                self._source.consume(error.start)
                self._no_json("The text is not UTF-8.")
        if self._rules.keep_all:
            self.text += text
        if self._catch:
            self._catch[2].extend(text)
        self._source.consume(count)

    # The outermost object's members.

    def _notice(self, text: bytes, at: int) -> None:
        name = json.loads(text)
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in self._names:
            refuse("J4", at, name, "The name is there twice; programs differ in which they use.")
        self._names.add(digest)
        if len(self._names) > (self._rules.max_members or 0):
            refuse("J2", at, name, f"More than {self._rules.max_members} members.")
        if name in self._rules.wanted:
            self._catch = (name, self._source.offset, bytearray())

    def _caught(self) -> None:
        assert self._catch
        name, at, text = self._catch
        self.kept[name] = (at, bytes(text))
        self._catch = None

    def _no_json(self, message: str) -> NoReturn:
        self._refuse("J3", message)

    def _refuse(self, rule: str, message: str) -> NoReturn:
        refuse(rule, self._source.offset, "JSON", message)
