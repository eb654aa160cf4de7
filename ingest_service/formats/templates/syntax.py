"""Jinja2's own parser: it gives a tree and executes nothing. Tags that it does not know are passed over."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from jinja2 import Environment, nodes
from jinja2.lexer import Lexer, Token
from jinja2.parser import Parser

_TAGS = frozenset(
    {"for", "if", "block", "extends", "print", "macro", "include", "from", "import", "set", "with"}
    | {"autoescape", "call", "filter", "do", "break", "continue"}
)
#: Ends and branches of the above: out of place they are errors.
_PARTS = frozenset({"elif", "else"} | {"end" + tag for tag in _TAGS})
#: Marks what an assistant said, for training; transformers and llama.cpp know it.
_IGNORED = frozenset({"generation", "endgeneration"})
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|(N\{[^}]*\})|(.))", re.DOTALL
)
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\n": ""}
_MAX_DIGITS = 400


class Unreadable(Exception):
    """Jinja2's parser cannot read it."""


class _Lexer(Lexer):
    """Turns literals into values by our own, bounded means, without the warnings of Python's codec."""

    def wrap(
        self, stream: Iterable[tuple[int, str, str]], name: str | None = None, filename: str | None = None
    ) -> Iterator[Token]:
        for lineno, kind, text in stream:
            if kind == "string":
                yield Token(lineno, kind, unescape(text[1:-1]))
            elif kind in ("integer", "float"):
                yield Token(lineno, kind, _number(text.replace("_", "")))  # type: ignore[arg-type]
            else:
                yield from super().wrap([(lineno, kind, text)], name, filename)


_HUGE = int("1" + "0" * _MAX_DIGITS)


def _number(text: str) -> int | float:
    if len(text) > _MAX_DIGITS:
        return _HUGE
    is_float = "." in text or ("e" in text.lower() and text[:2].lower() != "0x")
    return float(text) if is_float else int(text, 0)


def unescape(text: str) -> str:
    """A literal's escapes as Jinja2 reads them."""

    def character(found: re.Match[str]) -> str:
        two, four, eight, octal, named, single = found.groups()
        if named:
            value = ast.literal_eval(f'"\\{named}"')
            return str(value)
        code = int(two or four or eight or "0", 16) if not octal else int(octal, 8)
        if single is None:
            return chr(code)
        return _SIMPLE.get(single, single if single in "'\"\\" else "\\" + single)

    return _ESCAPE.sub(character, text)


class _Environment(Environment):
    lexer = property(_Lexer)


class _Parser(Parser):
    """Parses around tags that it does not know."""

    def __init__(self, environment: Environment, text: str) -> None:
        super().__init__(environment, text)
        self.unknown_tags: set[str] = set()

    def parse_statement(self) -> nodes.Node | list[nodes.Node]:
        token = self.stream.current
        if token.type != "name" or token.value in _TAGS or token.value in _PARTS:
            return super().parse_statement()
        if token.value not in _IGNORED:
            self.unknown_tags.add(str(token.value))
        next(self.stream)
        found: list[nodes.Node] = []
        while self.stream.current.type != "block_end":
            # Whatever it does with its expressions, they are judged.
            if self.stream.current.type in ("comma", "assign", "pipe", "dot", "colon", "operator"):
                next(self.stream)
            else:
                found.append(self.parse_expression())
        return nodes.Output(found, lineno=token.lineno) if found else []


_ENVIRONMENT = _Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"])
KNOWN_FILTERS = frozenset(_ENVIRONMENT.filters)
KNOWN_TESTS = frozenset(_ENVIRONMENT.tests)


def parse(text: str) -> tuple[nodes.Template, frozenset[str]]:
    """The tree, and the tags that are not known. Only for what `scan` let pass. Raises Unreadable."""
    parser = None
    try:
        parser = _Parser(_ENVIRONMENT, text)
        return parser.parse(), frozenset(parser.unknown_tags)
    except RecursionError:
        raise
    except Exception as error:  # noqa: BLE001 (a parser of texts: whatever it raises, it cannot read this one)
        raise Unreadable(str(error)[:200]) from None
