"""Counts how deep a template nests before anything parses it: one pass, no recursion.

Deep nesting ends llama.cpp's Jinja engine by a stack overflow, and would exhaust our own parser's recursion.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

#: More than twice what any real template was seen to use (docs/formats.md has the figures).
MAX_BRACKETS = 24
MAX_BLOCKS = 32
MAX_UNARY_OPERATORS = 24
MAX_OPERATORS = 1000
MAX_CONDITIONS = 64
MAX_BRANCHES = 400

_OPEN = re.compile(r"\{%[-+]?|\{\{[-+]?|\{#")
_RAW = re.compile(r"\{%[-+]?\s*raw\s*[-+]?%\}")
_END_RAW = re.compile(r"\{%[-+]?\s*endraw\s*[-+]?%\}")
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<end>[-+]?(?:%\}|\}\}))"
    r"|(?P<text>'[^'\\]*(?:\\.[^'\\]*)*'|\"[^\"\\]*(?:\\.[^\"\\]*)*\")"
    r"|(?P<name>[^\W\d]\w*)"
    r"|(?P<number>\d[\w.]*)"
    r"|(?P<operator>\*\*|//|==|!=|<=|>=|.)",
    re.DOTALL,
)
_BLOCKS = frozenset({"if", "for", "macro", "call", "filter", "block", "with", "autoescape"})
_ENDS = frozenset({"end" + name for name in _BLOCKS} | {"endset"})
_WORD_OPERATORS = frozenset({"not", "and", "or", "is", "in", "if", "else"})
_UNDERSCORED = re.compile(r"__\w|\\(?:x5f|137|u005f|N\{LOW)", re.IGNORECASE)


class TooDeep(Exception):
    """The template nests deeper than a bound allows."""


@dataclass(slots=True)
class _Level:
    """One bracket, or a tag's own level: the operators since its last comma."""

    operators: int = 0
    conditions: int = 0


@dataclass(slots=True)
class Scan:
    """What was counted; `suspect` is a word of the code that hints at an escape, for unreadable templates."""

    suspect: str = ""
    brackets: int = 0
    blocks: int = 0
    unary_operators: int = 0
    operators: int = 0
    conditions: int = 0
    branches: int = 0
    _open_branches: list[int] = field(default_factory=list)


def scan(text: str) -> Scan:
    """Raises TooDeep."""
    counts = Scan()
    at = 0
    while opened := _OPEN.search(text, at):
        at = opened.end()
        if opened.group() == "{#":
            end = text.find("#}", at)
            at = len(text) if end < 0 else end + 2
        elif raw := _RAW.match(text, opened.start()):
            closed = _END_RAW.search(text, raw.end())
            at = closed.end() if closed else len(text)
        else:
            at = _scan_tag(text, at, counts, is_statement=opened.group().startswith("{%"))
    return counts


def _scan_tag(text: str, at: int, counts: Scan, *, is_statement: bool) -> int:
    levels = [_Level()]
    first, previous, run = "", "", 0
    has_equals = False
    while found := _TOKEN.match(text, at):
        at, kind, token = found.end(), found.lastgroup, found.group()
        if kind == "space":
            continue
        if kind == "end":
            # Within brackets it is no end: two braces of dictionaries, as a rule.
            if len(levels) == 1:
                break
            at, token, kind = found.start() + 1, token[0], "operator"
        if not first:
            first = token
        if kind in ("text", "name"):
            _suspect(counts, kind, token, previous)
        if kind == "operator" or token in _WORD_OPERATORS:
            has_equals = has_equals or (token == "=" and len(levels) == 1)
            run = run + 1 if token in ("-", "+", "not", "*", "~") else 0
            _count_operator(token, levels, counts)
            counts.unary_operators = _bounded(
                "operators in a row", run, counts.unary_operators, MAX_UNARY_OPERATORS
            )
        else:
            run = 0
        previous = token
    if is_statement:
        _count_block(first, counts, is_open_set=first == "set" and not has_equals)
    return at


def _count_operator(token: str, levels: list[_Level], counts: Scan) -> None:
    level = levels[-1]
    if token in "([{":
        level.operators += 1
        levels.append(_Level())
        counts.brackets = _bounded("brackets within brackets", len(levels) - 1, counts.brackets, MAX_BRACKETS)
    elif token in ")]}":
        if len(levels) > 1:
            levels.pop()
    elif token in (",", ":"):
        level.operators = level.conditions = 0
    else:
        level.operators += 1
        level.conditions += token == "else"
    # Siblings of open brackets do not nest, so it is a sum over those that are open.
    if token not in ")]}":
        operators = sum(each.operators for each in levels)
        conditions = sum(each.conditions for each in levels)
        counts.operators = _bounded("operators in one expression", operators, counts.operators, MAX_OPERATORS)
        counts.conditions = _bounded("`if` in one expression", conditions, counts.conditions, MAX_CONDITIONS)


def _count_block(name: str, counts: Scan, *, is_open_set: bool) -> None:
    branches = counts._open_branches
    if name in _BLOCKS or is_open_set:
        branches.append(0)
        counts.blocks = _bounded("blocks within blocks", len(branches), counts.blocks, MAX_BLOCKS)
    elif name in _ENDS and branches:
        branches.pop()
    elif name == "elif" and branches:
        branches[-1] += 1
        counts.branches = _bounded("`elif` of one `if`", sum(branches), counts.branches, MAX_BRANCHES)


def _bounded(what: str, number: int, most_so_far: int, bound: int) -> int:
    if number > bound:
        raise TooDeep(f"{what}: more than {bound}")
    return max(number, most_so_far)


def _suspect(counts: Scan, kind: str, token: str, previous: str) -> None:
    if counts.suspect:
        return
    if (kind == "name" and previous == "." and token.startswith("_")) or (
        kind == "name" and previous == "|" and token == "attr"
    ):
        counts.suspect = token
    elif kind == "text" and _UNDERSCORED.search(token):
        counts.suspect = token[:40]
