"""The filters that a name can be put together with, and those that take an attribute's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jinja2 import nodes

from ingest_service.formats.templates.folding import (
    FILTERS,
    NUMERIC_FILTERS,
    TEXT_FILTERS,
    braces,
    percent,
)
from ingest_service.formats.templates.values import (
    UNKNOWN,
    Value,
    constant,
    fold,
    items_of,
    members,
    named_by,
    not_followed,
    union,
)

if TYPE_CHECKING:
    from ingest_service.formats.templates.expressions import Expressions

#: Filter -> where among its arguments the attribute's name is.
_ATTRIBUTES = {
    "map": None, "selectattr": 0, "rejectattr": 0, "groupby": 0, "sort": 2, "unique": 1, "min": 1, "max": 1,
    "sum": 0, "join": 1,
}  # fmt: skip
_FILLING = frozenset({"indent", "center", "batch", "slice", "tojson"})
_CHOOSING = frozenset({"select", "reject", "selectattr", "rejectattr"})


def apply(scope: Expressions, node: nodes.Filter, base: Value | None = None) -> Value:
    """The filter's value; names of attributes that it takes are judged."""
    if base is None:
        base = scope.values[id(node.node)] if node.node is not None else UNKNOWN
    arguments = [scope.values[id(argument)] for argument in node.args]
    keywords = {str(keyword.key): scope.values[id(keyword.value)] for keyword in node.kwargs}
    if node.dyn_args is not None:
        arguments.append(members(scope.values[id(node.dyn_args)]))
    if node.dyn_kwargs is not None:
        keywords |= named_by(scope.values[id(node.dyn_kwargs)])
    _check_attributes(scope, node.name, arguments, keywords)
    if node.name in _FILLING:
        scope.check_widths([*arguments, *keywords.values()])
    return result_of(node.name, base, [*arguments, *keywords.values()])


def result_of(name: str, base: Value, arguments: list[Value]) -> Value:
    """What the filter makes of it."""
    if name == "int" and base.constants and not base.unknown and not arguments:
        return fold(int, base)
    if name in NUMERIC_FILTERS:
        # What is no number becomes the default of `int` and `float`; a sum may be one of lists.
        return not_followed(base if name == "sum" else UNKNOWN, *arguments)
    if name in ("default", "d"):
        return union(base, *arguments)
    if name in _CHOOSING:
        return replace(union(base, members(base)), unknown=True, iterator=True)
    if name == "map":
        return _mapped(base, arguments)
    if base.iterator and name in TEXT_FILTERS:
        return Value(unknown=True, assembled=True)
    if base.opaque and (name in TEXT_FILTERS or name == "join"):
        return Value(unknown=True, assembled=True)
    if name == "format":
        return formatted(base, arguments)
    if name in FILTERS:
        return folded(FILTERS[name], base, arguments)
    return not_followed(base, *arguments)


def folded(function: Callable[..., Any], base: Value, arguments: list[Value]) -> Value:
    """Of constants; an unknown text stays one, and taking it apart may bring out an underscore in it."""
    result = fold(function, base, *arguments)
    is_lost = base.has_text and not result.constants
    if base.unknown and function is FILTERS["replace"]:
        # The whole of the text may be what is replaced.
        names = [text for argument in arguments[1:2] for text in argument.texts if len(text.strip("_"))]
        result = union(result, constant(*names))
    marks = any("_" in text for argument in arguments for text in argument.texts)
    return replace(
        result,
        assembled=result.assembled or is_lost or base.underscored or base.assembled,
        underscored=base.underscored or (base.unknown and marks),
        opaque=base.opaque,
        size=max(result.size, base.size),
    )


def formatted(base: Value, arguments: list[Value], mark: str = "%") -> Value:
    """`'...' % x`, `'...'|format(x)` and `'...'.format(x)`."""
    result = fold(percent if mark == "%" else braces, base, *arguments)
    if not base.texts:
        return replace(result, unknown=result.unknown or base.unknown)
    if not result.constants:
        # Arguments by name or by number, or beside ones that are not known.
        result = union(result, not_followed(UNKNOWN, *arguments))
    if not any(argument.unknown for argument in arguments) and (result.constants or result.assembled):
        return result
    # With parts that are not known: how it begins, and whether letters are made of numbers.
    starts = [text.split(mark)[0] for text in base.texts]
    numbers = any("%c" in text or ":c" in text for text in base.texts)
    opaque = any(argument.opaque or argument.iterator for argument in arguments)
    rest = any("_" in text for text in base.texts)
    # What stands for an unknown part may be empty.
    opaque = opaque or any("__" in text for text in base.texts)
    merged = union(result, constant(*(start for start in starts if start)))
    return replace(merged, unknown=True, assembled=merged.assembled or numbers or opaque, underscored=rest)


def _mapped(base: Value, arguments: list[Value]) -> Value:
    results = []
    elements = members(base)
    for name in arguments[0].texts if arguments else ():
        inner = result_of(name, elements, arguments[1:])
        results.append(inner)
        if name in FILTERS and not base.unknown:
            results.append(_each(FILTERS[name], base, arguments[1:]))
    if not results:
        return not_followed(base, *arguments)
    merged = union(*results)
    return replace(
        merged, iterator=True, assembled=merged.assembled or (base.has_text and not merged.constants)
    )


def _each(function: Callable[..., Any], base: Value, arguments: list[Value]) -> Value:
    return fold(
        lambda whole, *rest: tuple(function(item, *rest) for item in items_of(whole)), base, *arguments
    )


def _check_attributes(
    scope: Expressions, name: str, arguments: list[Value], keywords: dict[str, Value]
) -> None:
    if name == "attr":
        _check_attr(scope, arguments[0] if arguments else keywords.get("name", UNKNOWN))
    if name not in _ATTRIBUTES:
        return
    place = _ATTRIBUTES[name]
    if place is not None and len(arguments) > place:
        scope.check_path(arguments[place])
    if "attribute" in keywords:
        scope.check_path(keywords["attribute"])
    if name == "map" and arguments:
        filter_name = arguments[0]
        for text in filter_name.texts:
            _check_attributes(scope, text, arguments[1:], keywords)
        if filter_name.assembled or (filter_name.unknown and len(arguments) > 1):
            scope.refuse("`map` with a filter that is not named plainly")


def _check_attr(scope: Expressions, name: Value) -> None:
    """`attr` reaches nothing but attributes: its name has to be known."""
    scope.check_name(name)
    if name.unknown or not name.constants:
        scope.refuse("`attr` with a name that is not written out")
