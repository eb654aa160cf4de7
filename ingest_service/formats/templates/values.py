"""What an expression of a template may be: its possible constants, and what is known of the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

_MAX_CONSTANTS = 128
_MAX_COMBINATIONS = 128
_MAX_MEMBERS = 1024
#: Of all results of one operation together.
_MAX_RESULTS = 1 << 14
_MAX_TEXT = 2048
#: What Python raises when an operation does not fit its operands: at run time no value comes of it either.
_NO_VALUE = (TypeError, ValueError, IndexError, KeyError, AttributeError, ArithmeticError, LookupError)


@dataclass(frozen=True, slots=True)
class Pairs:
    """A dictionary of constants."""

    items: tuple[tuple[Any, Any], ...]


@dataclass(frozen=True, slots=True)
class MacroName:
    """A macro of the template, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Value:
    """All that an expression may be."""

    #: Texts, numbers, None, tuples (for lists too), ranges, Pairs and macros. Beside `unknown`: what it may
    #: begin with.
    constants: frozenset[Any] = frozenset()
    #: It may be something of the conversation, which the template's author does not choose.
    unknown: bool = False
    #: A function, or a list of such: as a text it has letters that nobody wrote, among them `_`.
    opaque: bool = False
    #: The same of an iterator, whose elements are no matter of this.
    iterator: bool = False
    #: A text that is made of the template's own constants or of opaque objects, in a way not followed here.
    assembled: bool = False
    #: An unknown text with an underscore of the template's own in it.
    underscored: bool = False
    #: How many characters or elements it has at least, counted through assignments.
    size: int = 0

    @property
    def texts(self) -> list[str]:
        return [constant for constant in self.constants if isinstance(constant, str)]

    @property
    def has_text(self) -> bool:
        return any(_is_textual(constant) for constant in self.constants)

    @property
    def is_true(self) -> bool:
        """For sure, whatever the conversation."""
        if self.unknown or self.assembled or not self.constants:
            return False
        return all(bool(c.items) if isinstance(c, Pairs) else bool(c) for c in self.constants)


UNKNOWN = Value(unknown=True)


def constant(*values: Any, most: int = _MAX_CONSTANTS) -> Value:
    """These, and nothing else; what cannot be kept makes it assembled, if there was a text in it."""
    kept: set[Any] = set()
    is_lost = False
    size = 0
    for value in values:
        size = max(size, size_of(value))
        if len(kept) < most and _is_small(value):
            kept.add(value)
        elif value not in kept:
            is_lost = is_lost or _is_textual(value)
    has_more = len(kept) < len(set(values))
    return Value(frozenset(kept), unknown=has_more, assembled=is_lost, size=size)


def union(*values: Value) -> Value:
    """One of these."""
    if len(values) == 1:
        return values[0]
    merged = frozenset().union(*(value.constants for value in values))
    is_lost = has_more = False
    if len(merged) > _MAX_MEMBERS:
        has_more = True
        is_lost = any(map(_is_textual, merged))
        merged = frozenset()
    return Value(
        merged,
        unknown=has_more or any(value.unknown for value in values),
        opaque=any(value.opaque for value in values),
        iterator=any(value.iterator for value in values),
        assembled=is_lost or any(value.assembled for value in values),
        underscored=any(value.underscored for value in values),
        size=max((value.size for value in values), default=0),
    )


def fold(function: Callable[..., Any], *operands: Value) -> Value:
    """The function of each combination of constants; the flags go on to the result."""
    results: list[Any] = []
    combinations = product(*(operand.constants for operand in operands))
    total = 0
    for combination in islice(combinations, _MAX_COMBINATIONS):
        try:
            results.append(function(*combination))
        except _NO_VALUE:
            continue
        total += size_of(results[-1])
        if total > _MAX_RESULTS:
            break
    result = constant(*results)
    is_cut = next(combinations, None) is not None
    return replace(
        result,
        unknown=result.unknown or is_cut or any(operand.unknown for operand in operands),
        assembled=result.assembled
        or any(operand.assembled for operand in operands)
        or (is_cut and any(operand.has_text for operand in operands)),
        underscored=any(operand.underscored for operand in operands),
    )


def not_followed(base: Value, *arguments: Value) -> Value:
    """What an operation makes that is not worked out: of texts of the template's own, an assembled one."""
    assembled = base.has_text or base.assembled or (base.opaque and not base.constants and not base.unknown)
    given = handed_on(*arguments)
    return replace(
        given,
        unknown=True,
        assembled=assembled or base.underscored or given.assembled,
        underscored=base.underscored or given.underscored,
    )


def named_by(value: Value) -> dict[str, Value]:
    """`**value`: arguments by name."""
    return {
        str(key): constant(each)
        for pairs in value.constants
        if isinstance(pairs, Pairs)
        for key, each in pairs.items
    }


def handed_on(*arguments: Value) -> Value:
    """One of these arguments, or of what they have in them: what a filter or method may give back."""
    lists = (
        replace(each, constants=frozenset(one for one in each.constants if not isinstance(one, str)))
        for each in arguments
    )
    kept = list(lists)
    dictionaries = [one for each in kept for one in each.constants if isinstance(one, Pairs)]
    inner = constant(*(value for one in dictionaries for _, value in one.items))
    given = union(*arguments, *map(members, kept), inner)
    texts = frozenset(each for each in given.constants if isinstance(each, str | Pairs | tuple))
    has_mark = any("_" in each for each in texts if isinstance(each, str))
    return Value(texts, assembled=given.assembled, underscored=given.underscored or has_mark)


def members(value: Value) -> Value:
    """What iterating over it may give."""
    found: list[Any] = []
    is_cut = False
    for each in value.constants:
        items = list(islice(items_of(each), _MAX_MEMBERS + 1))
        is_cut = is_cut or len(items) > _MAX_MEMBERS
        found.extend(items[:_MAX_MEMBERS])
    # A range's numbers need not all be tried.
    result = constant(*found, most=_MAX_MEMBERS)
    return replace(
        result,
        unknown=result.unknown or value.unknown or is_cut,
        assembled=result.assembled or value.assembled or value.underscored,
    )


def items_of(value: Any) -> Iterable[Any]:
    """The elements of a text, a list, a range, or the keys of a dictionary; none of others."""
    if isinstance(value, Pairs):
        return (key for key, _ in value.items)
    return value if isinstance(value, str | tuple | range) else ()


def length_of(value: Any) -> int:
    """How many times a loop over it runs."""
    if isinstance(value, range):
        return max(0, -((value.start - value.stop) // value.step))
    if isinstance(value, Pairs):
        return len(value.items)
    return len(value) if isinstance(value, str | tuple) else 0


def size_of(value: Any) -> int:
    """Characters and elements, of all that is within."""
    if isinstance(value, Pairs):
        return len(value.items) + sum(size_of(each) for pair in value.items for each in pair)
    if isinstance(value, tuple):
        return len(value) + sum(size_of(each) for each in value)
    return len(value) if isinstance(value, str) else 0


def _is_textual(value: Any) -> bool:
    if isinstance(value, Pairs):
        return any(_is_textual(each) for pair in value.items for each in pair)
    if isinstance(value, tuple):
        return any(_is_textual(each) for each in value)
    return isinstance(value, str) and value != ""


def _is_small(value: Any) -> bool:
    if isinstance(value, int):
        return abs(value) < 1 << 64
    return size_of(value) <= _MAX_TEXT
