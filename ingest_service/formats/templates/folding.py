"""What filters, methods and operators make of constants: those with which names can be put together."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from typing import Any

from ingest_service.formats.templates.values import Pairs, items_of, length_of

_MAX_RESULT = 1 << 16
_ATTRIBUTE = re.compile(r"\{[^}]*[.\[]")
_WIDTH = re.compile(r"\d{4,}|\*")


def text_of(value: Any) -> str:
    """As it would be printed. Of lists and numbers it is near enough."""
    if isinstance(value, str):
        return value
    if isinstance(value, Pairs):
        return str(dict(value.items))
    if isinstance(value, range | tuple) and length_of(value) > _MAX_RESULT:
        raise ValueError
    return str(value)


def _count_within(text: str, part: str, by: str, count: int | None = None) -> str:
    if len(text) * max(1, len(by)) > _MAX_RESULT * 16:
        raise ValueError
    return text.replace(part, by, -1 if count is None else count)


def percent(text: str, *arguments: Any) -> str:
    """`text % arguments`."""
    if _WIDTH.search(text):
        raise ValueError
    single = arguments[0] if len(arguments) == 1 else arguments
    return str(text % (dict(single.items) if isinstance(single, Pairs) else single))


def braces(text: str, *arguments: Any) -> str:
    """`text.format(...)`, of plain fields."""
    if _WIDTH.search(text) or _ATTRIBUTE.search(text):
        raise ValueError
    return text.format(*arguments)


def _items(value: Any) -> tuple[Any, ...]:
    if length_of(value) > _MAX_RESULT:
        raise ValueError
    return tuple(items_of(value))


def _reverse(value: Any) -> Any:
    return value[::-1] if isinstance(value, str) else _items(value)[::-1]


def _join(value: Any, by: Any = "") -> str:
    return text_of(by).join(text_of(item) for item in _items(value))


def _pairs(value: Pairs) -> tuple[Any, ...]:
    return value.items


def _get(value: Pairs, key: Any, default: Any = None) -> Any:
    return dict(value.items).get(key, default)


def _dump(value: Any) -> str:
    return json.dumps(dict(value.items) if isinstance(value, Pairs) else value)


def _on_text(method: Callable[..., str]) -> Callable[..., str]:
    return lambda value, *arguments: method(text_of(value), *arguments)


#: Those that make numbers or answers: no name comes of them.
NUMERIC_FILTERS = frozenset({"length", "count", "int", "float", "abs", "round", "wordcount", "sum"})
NUMERIC_METHODS = frozenset(
    {"startswith", "endswith", "find", "rfind", "index", "count", "isdigit", "isspace"}
)
#: Those that make a text of whatever they get, so also of a function.
TEXT_FILTERS: dict[str, Callable[..., Any]] = {
    "string": text_of, "safe": text_of, "e": text_of, "escape": text_of, "forceescape": text_of,
    "lower": _on_text(str.lower), "upper": _on_text(str.upper), "title": _on_text(str.title),
    "capitalize": _on_text(str.capitalize), "trim": _on_text(str.strip), "striptags": text_of,
    "replace": _on_text(_count_within), "format": percent, "pprint": repr, "tojson": _dump,
}  # fmt: skip
FILTERS: dict[str, Callable[..., Any]] = TEXT_FILTERS | {
    "reverse": _reverse, "join": _join, "list": _items, "first": lambda value: _items(value)[0],
    "last": lambda value: _items(value)[-1], "unique": lambda value: tuple(dict.fromkeys(_items(value))),
    "sort": lambda value: tuple(sorted(_items(value))), "items": _pairs, "dictsort": _pairs,
}  # fmt: skip
METHODS: dict[str, Callable[..., Any]] = {
    name: getattr(str, name)
    for name in ("lower", "upper", "title", "capitalize", "swapcase", "casefold", "strip", "lstrip", "rstrip")
} | {
    "split": lambda value, *a: tuple(value.split(*a)), "rsplit": lambda value, *a: tuple(value.rsplit(*a)),
    "splitlines": lambda value: tuple(value.splitlines()), "replace": _count_within, "format": braces,
    "partition": str.partition, "rpartition": str.rpartition, "removeprefix": str.removeprefix,
    "removesuffix": str.removesuffix, "join": lambda value, items: _join(items, value), "get": _get,
    "keys": lambda value: tuple(key for key, _ in value.items),
    "values": lambda value: tuple(each for _, each in value.items), "items": _pairs,
}  # fmt: skip


def concatenate(*parts: Any) -> str:
    """`~`."""
    return "".join(text_of(part) for part in parts)


def multiply(left: Any, right: Any) -> Any:
    """`*`, unless it is a large text: its size is worked out elsewhere."""
    for text, times in ((left, right), (right, left)):
        if isinstance(text, str | tuple) and isinstance(times, int) and len(text) * times > _MAX_RESULT:
            raise ValueError
    return left * right


def power(left: Any, right: Any) -> Any:
    """`**`, of small numbers."""
    if abs(left) > 1 << 32 or abs(right) > 64:
        raise ValueError
    return left**right


def modulo(left: Any, right: Any) -> Any:
    """`%`: of numbers, or a text's format."""
    if isinstance(left, str):
        return percent(left, *(right if isinstance(right, tuple) else (right,)))
    return left % right


def add(left: Any, right: Any) -> Any:
    """`+`."""
    return left + right


def element(value: Any, index: Any) -> Any:
    """`value[index]`."""
    return dict(value.items)[index] if isinstance(value, Pairs) else value[index]


BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": add, "Sub": operator.sub, "Mul": multiply, "Div": operator.truediv, "FloorDiv": operator.floordiv,
    "Mod": modulo, "Pow": power,
}  # fmt: skip
