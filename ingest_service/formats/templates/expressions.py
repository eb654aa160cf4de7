"""The values of expressions, and the attribute names that they reach."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from jinja2 import nodes

from ingest_service.formats.templates import filters
from ingest_service.formats.templates.folding import (
    BINARY,
    METHODS,
    NUMERIC_METHODS,
    concatenate,
    element,
    text_of,
)
from ingest_service.formats.templates.tree import post_order
from ingest_service.formats.templates.values import (
    UNKNOWN,
    MacroName,
    Pairs,
    Value,
    constant,
    fold,
    handed_on,
    items_of,
    length_of,
    members,
    named_by,
    not_followed,
    union,
)

#: Larger ranges and texts take engines down that build them whole.
MAX_RANGE = 100_000
MAX_SIZE = 16 << 20
#: Values that are looked at for one template; the figures of real ones are in docs/formats.md.
MAX_WORK = 1_000_000
_GLOBALS = frozenset(
    {"lipsum", "cycler", "joiner", "namespace", "dict", "range", "self", "caller", "loop"}
    | {"raise_exception", "strftime_now"}
)
_MAX_VALUES = 256
_ADDING = frozenset({"append", "extend", "insert", "add", "update", "setdefault"})
_FILLING = frozenset({"ljust", "rjust", "center", "zfill", "expandtabs"})
_MACRO_TEXTS = frozenset({"name", "arguments"})
_COMPARING = (nodes.Compare, nodes.Test, nodes.Not)
#: Methods that give back one of their arguments: which ones.
_GIVING = {"get": slice(1, None), "replace": slice(1, 2), "join": slice(0, 1)}
#: Methods of texts and lists whose names no message and no tool has as a field.
_KEPT_METHODS = frozenset(
    {
        "lower",
        "upper",
        "capitalize",
        "swapcase",
        "casefold",
        "strip",
        "lstrip",
        "rstrip",
        "split",
        "rsplit",
        "pop",
    }
    | {"splitlines", "replace", "partition", "rpartition", "removeprefix", "removesuffix", "join"}
)
#: Attributes of generators, frames and classes that lead to Python's built-in functions; Jinja2's sandbox has
#: most of them in its own list.
_INNER = frozenset(
    {"mro", "gi_frame", "gi_code", "gi_yieldfrom", "cr_frame", "cr_code", "cr_await", "ag_frame", "ag_code"}
    | {"ag_await", "tb_frame", "tb_next", "f_back", "f_builtins", "f_code", "f_globals", "f_locals"}
)


#: What `caller()` gives: the text of a call block. No variable has such a name.
CALLER_TEXT = "caller()"


class TooMuch(Exception):
    """The template has its variables take more values than can be gone over."""


class Expressions:
    """Variables and what they may be; `escapes` and `bombs` get what is found."""

    def __init__(self, escapes: list[str], bombs: list[str], macros: Sequence[nodes.Macro]) -> None:
        self.names: dict[str, Value] = {}
        self.values: dict[int, Value] = {}
        self.caller_arguments: list[str] = []
        #: Of loops that call themselves.
        self.recursive_targets: list[nodes.Node] = []
        self.changed = False
        #: In the first round only: sizes add up with every pass over an assignment.
        self.counts_sizes = True
        self._namespaces: dict[str, bool] = {}
        self._sizes: dict[str, int] = {}
        self._escapes = escapes
        self._bombs = bombs
        self._work = 0
        self._macro_texts: dict[str, Value] = {}
        self._macros: dict[str, list[nodes.Macro]] = {}
        for macro in macros:
            self._macros.setdefault(macro.name, []).append(macro)

    # Names

    def bind(self, target: nodes.Node, value: Value) -> None:
        """Assigns to a name, an attribute of a namespace, or several at once."""
        if isinstance(target, nodes.Name):
            self.bind_name(target.name, value)
        elif isinstance(target, nodes.NSRef):
            self.bind_name("." + target.attr, value)
        elif isinstance(target, nodes.Tuple):
            for index, each in enumerate(target.items):
                inner = fold(lambda whole, at=index: element(whole, at), value)
                self.bind(each, replace(inner, unknown=inner.unknown or value.unknown))

    def bind_name(self, name: str, value: Value, *, is_namespace: bool = False) -> None:
        """One more value that the name may have."""
        self._namespaces[name] = is_namespace and self._namespaces.get(name, True)
        known = self.names.get(name)
        self._sizes[name] = value.size
        merged = value if known is None else union(known, value)
        self._spend(len(merged.constants) + len(value.constants))
        if merged.constants and all(isinstance(each, int | float) for each in merged.constants):
            # Counters have no end, and no name comes of them.
            merged = replace(
                merged, assembled=merged.assembled and (value.assembled or bool(known and known.assembled))
            )
        is_full = len(merged.constants) > _MAX_VALUES and merged.has_text
        if is_full or (known is not None and known.assembled):
            # A text that grows piece by piece: not told any more which, only that it is the template's own.
            kept = frozenset(each for each in merged.constants if isinstance(each, MacroName))
            merged = replace(merged, constants=kept, assembled=True)
        flat = replace(merged, size=0)
        if known != flat:
            self.names[name] = flat
            self.changed = True

    def bind_defaults(self, arguments: Sequence[nodes.Name], defaults: Sequence[Value]) -> None:
        """A macro's own values for its last arguments."""
        first = len(arguments) - len(defaults)
        for index, argument in enumerate(arguments):
            self.bind_name(argument.name, defaults[index - first] if index >= first else Value())

    def _name(self, name: str) -> Value:
        if name in self.names:
            return replace(self.names[name], size=self._sizes.get(name, 0))
        if name == "caller":
            return replace(constant(MacroName(CALLER_TEXT)), opaque=True)
        return Value(opaque=True) if name in _GLOBALS else UNKNOWN

    # Values

    def value(self, expression: nodes.Node) -> Value:
        """Works out the expression and all within it."""
        for node in post_order(expression):
            value = self._one(node)
            self._spend(1 + len(value.constants))
            if value.size > MAX_SIZE and self.counts_sizes:
                self._bomb(f"it makes a text or list of over {MAX_SIZE} elements")
            self.values[id(node)] = value
        return self.values[id(expression)]

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > MAX_WORK:
            raise TooMuch

    def _one(self, node: nodes.Node) -> Value:
        if isinstance(node, nodes.Const):
            return constant(node.value)
        if isinstance(node, nodes.TemplateData):
            return constant(node.data)
        if isinstance(node, nodes.Name):
            return self._name(node.name)
        if isinstance(node, nodes.Tuple | nodes.List):
            return self._sequence([self.values[id(item)] for item in node.items])
        if isinstance(node, nodes.Dict):
            return self._dictionary([(self.values[id(p.key)], self.values[id(p.value)]) for p in node.items])
        if isinstance(node, nodes.Keyword):
            return self.values[id(node.value)]
        if isinstance(node, nodes.Filter):
            return filters.apply(self, node)
        if isinstance(node, nodes.Call):
            return self._call(node)
        if isinstance(node, nodes.Getattr):
            return self._attribute(node)
        if isinstance(node, nodes.Getitem):
            return self._item(node)
        return self._operation(node)

    def _operation(self, node: nodes.Node) -> Value:
        children = [self.values[id(child)] for child in node.iter_child_nodes()]
        if isinstance(node, nodes.Concat):
            return self.joined(children)
        if isinstance(node, nodes.CondExpr):
            return union(*children[1:]) if node.expr2 is not None else union(*children[1:], constant(""))
        if isinstance(node, nodes.And | nodes.Or):
            return union(*children)
        if isinstance(node, nodes.BinExpr):
            return self._binary(type(node).__name__, *children)
        if isinstance(node, nodes.Neg | nodes.Pos):
            sign = -1 if isinstance(node, nodes.Neg) else 1
            return fold(lambda number: number * sign if isinstance(number, int | float) else 0, *children)
        if isinstance(node, nodes.Slice):
            return UNKNOWN
        if isinstance(node, _COMPARING):
            return self._comparison(node)
        return union(*children, UNKNOWN) if children else UNKNOWN

    def _comparison(self, node: nodes.Node) -> Value:
        if isinstance(node, nodes.Not):
            return fold(lambda value: not value, self.values[id(node.node)])
        return UNKNOWN

    def _sequence(self, items: list[Value]) -> Value:
        size = len(items) + sum(item.size for item in items)
        if all(len(item.constants) == 1 and not item.unknown and not item.assembled for item in items):
            whole = constant(tuple(next(iter(item.constants)) for item in items))
            return replace(whole, size=size)
        # Each that is known for itself: what is taken out may be any of them.
        alternatives = constant(*((each,) for item in items for each in item.constants))
        return replace(
            alternatives,
            unknown=True,
            opaque=any(item.opaque or item.iterator for item in items),
            assembled=alternatives.assembled or any(item.assembled for item in items),
            size=size,
        )

    def _dictionary(self, pairs: list[tuple[Value, Value]]) -> Value:
        parts = [value for pair in pairs for value in pair]
        size = len(pairs) + sum(part.size for part in parts)
        if all(len(part.constants) == 1 and not part.unknown and not part.assembled for part in parts):
            whole = Pairs(tuple((next(iter(k.constants)), next(iter(v.constants))) for k, v in pairs))
            return replace(constant(whole), size=size)
        found = [
            Pairs(((key, value),))
            for keys, values in pairs
            for key in keys.constants or (None,)
            for value in values.constants or (None,)
        ]
        merged = constant(*found)
        return replace(
            merged,
            unknown=True,
            opaque=any(part.opaque or part.iterator for part in parts),
            assembled=merged.assembled or any(part.assembled for part in parts),
            size=size,
        )

    def joined(self, parts: Sequence[Value]) -> Value:
        """One text of all the parts."""
        size = sum(part.size for part in parts)
        known: list[Value] = []
        for part in parts:
            if part.iterator or (part.opaque and not part.unknown):
                return Value(unknown=True, assembled=True, size=size)
        for part in parts:
            if not part.constants:
                break
            known.append(part)
        # Of an unknown text it is what it begins with.
        folded = fold(concatenate, *known) if known else Value() if parts else constant("")
        rest = parts[len(known) :]
        has_unknown = any(part.unknown for part in parts)
        has_mark = any(_has_mark(part) for part in (*rest, folded)) and has_unknown
        # What is not known may be empty.
        written = "".join(max(part.texts, key=lambda each: each.count("_"), default="") for part in parts)
        return replace(
            folded,
            unknown=any(part.unknown for part in parts),
            assembled=folded.assembled
            or any(part.assembled for part in parts)
            or (bool(rest) and has_unknown and "__" in written),
            underscored=has_mark or any(part.underscored for part in parts),
            size=max(size, folded.size),
        )

    def _binary(self, kind: str, left: Value, right: Value) -> Value:
        if kind == "Add" and (left.unknown or right.unknown) and (left.has_text or right.has_text):
            if not any(isinstance(each, tuple) for each in left.constants | right.constants):
                return self.joined([left, right])
            return replace(union(left, right), unknown=True, size=left.size + right.size)
        if kind == "Mod" and left.has_text:
            return filters.formatted(left, [right])
        if kind == "Pow":
            self._check_power(left, right)
        result = fold(BINARY[kind], left, right)
        size = result.size
        if kind == "Add":
            size = left.size + right.size
        elif kind == "Mul":
            for text, times in ((left, right), (right, left)):
                numbers = [each for each in times.constants if isinstance(each, int)]
                if text.size and numbers:
                    size = max(size, text.size * max(numbers))
            is_whole = len(result.constants) == len(left.constants) * len(right.constants)
            if not is_whole and (left.has_text or right.has_text):
                result = replace(result, assembled=True)
        if left.underscored or right.underscored:
            result = replace(result, underscored=True)
        return replace(result, size=size)

    def _check_power(self, left: Value, right: Value) -> None:
        for base in left.constants:
            for exponent in right.constants:
                is_integer = isinstance(base, int) and isinstance(exponent, int)
                if is_integer and exponent * max(1, abs(base).bit_length()) > MAX_SIZE:
                    self._bomb("it raises a number to a power that has millions of digits")

    def _call(self, node: nodes.Call) -> Value:
        callee = self.values[id(node.node)]
        arguments = [self.values[id(argument)] for argument in node.args]
        keywords = {str(keyword.key): self.values[id(keyword.value)] for keyword in node.kwargs}
        spread = [each for each in (node.dyn_args, node.dyn_kwargs) if each is not None]
        arguments.extend(members(self.values[id(each)]) for each in spread)
        if node.dyn_kwargs is not None:
            keywords |= named_by(self.values[id(node.dyn_kwargs)])
        if isinstance(node.node, nodes.Name):
            built_in = self._global_call(node.node.name, arguments, keywords)
            if built_in is not None:
                return built_in
        macros = [each.name for each in callee.constants if isinstance(each, MacroName)]
        if macros:
            return self._macro_call(macros, arguments, keywords)
        handed = [*arguments, *keywords.values()]
        if isinstance(node.node, nodes.Getattr | nodes.Getitem):
            return self._method_call(node.node, arguments, keywords)
        # A joiner gives the text that it was made with.
        given = union(not_followed(UNKNOWN, *handed), constant(*callee.texts))
        return replace(given, assembled=given.assembled or callee.assembled)

    def _global_call(self, name: str, arguments: list[Value], keywords: dict[str, Value]) -> Value | None:
        if name in self.names:
            return None
        if name == "range":
            return self._range(arguments)
        if name == "dict":
            named = self._dictionary([(constant(key), value) for key, value in keywords.items()])
            return union(named, *map(_as_pairs, arguments))
        if name == "namespace":
            for key, given in keywords.items():
                self.bind_name("." + key, given)
            self._bind_members(arguments)
            return UNKNOWN
        if name == "caller":
            return self._caller(arguments, keywords)
        if name == "loop":
            # A recursive loop, over what it is called with.
            for target in self.recursive_targets:
                self.bind(target, members(union(*arguments)))
            return UNKNOWN
        if name in ("cycler", "joiner"):
            # What it gives one after the other, through its `next`.
            given = union(*arguments, *keywords.values())
            for field in (".next", ".current", ".items"):
                self.bind_name(field, given if field != ".items" else self._sequence(arguments))
            return replace(given, opaque=True)
        return not_followed(UNKNOWN, *arguments, *keywords.values())

    def _caller(self, arguments: list[Value], keywords: dict[str, Value]) -> Value:
        """A call block: it takes these, and gives its text."""
        for index, name in enumerate(self.caller_arguments):
            self.bind_name(name, arguments[index] if index < len(arguments) else union(*arguments))
        for name, given in keywords.items():
            self.bind_name(name, given)
        return union(self.names.get(CALLER_TEXT, UNKNOWN), UNKNOWN)

    def _range(self, arguments: list[Value]) -> Value:
        result = fold(range, *arguments) if arguments else UNKNOWN
        if any(length_of(each) > MAX_RANGE for each in result.constants):
            self._bomb(f"it makes a range of more than {MAX_RANGE} numbers")
        if any(isinstance(each, range) for each in result.constants):
            return result
        largest = [
            n for a in arguments for n in a.constants if isinstance(n, int) and not isinstance(n, bool)
        ]
        if not result.unknown and largest and max(largest) > MAX_RANGE:
            self._bomb(f"it makes a range of more than {MAX_RANGE} numbers")
        return replace(result, unknown=True)

    def _macro_call(self, names: list[str], arguments: list[Value], keywords: dict[str, Value]) -> Value:
        results = []
        for name in names:
            if name == CALLER_TEXT:
                results.append(self._caller(arguments, keywords))
                continue
            for macro in self._macros.get(name, ()):
                parameters = [argument.name for argument in macro.args]
                for parameter, value in zip(parameters, arguments, strict=False):
                    self.bind_name(parameter, value)
                others = [(constant(key), each) for key, each in keywords.items() if key not in parameters]
                if others:
                    self.bind_name("kwargs", self._dictionary(others))
                for parameter, value in keywords.items():
                    self.bind_name(parameter if parameter in parameters else "." + parameter, value)
                for value in arguments[len(parameters) :]:
                    self.bind_name("varargs", self._sequence([value]))
            results.append(self._macro_texts.get(name, UNKNOWN))
        return replace(union(*results, UNKNOWN), size=0)

    def end_macro(self, macro: nodes.Macro) -> None:
        """What a macro's call gives: the whole of what it prints, or a part of it."""
        outputs = [node for each in macro.find_all(nodes.Output) for node in each.nodes]
        known = [self.values[id(node)] for node in outputs if id(node) in self.values]
        self._spend(len(outputs) + sum(len(value.constants) for value in known))
        text = replace(union(self.joined(known), *known), size=0)
        if text != self._macro_texts.get(macro.name):
            self._macro_texts[macro.name] = text
            self.changed = True

    def _bind_members(self, arguments: Sequence[Value]) -> None:
        """The pairs of these dictionaries, as attributes of whatever takes them."""
        for argument in map(_as_pairs, arguments):
            for pairs in argument.constants:
                for field, each in pairs.items:
                    self.bind_name(f".{field}", constant(each))

    def _method_call(
        self, node: nodes.Getattr | nodes.Getitem, arguments: list[Value], keywords: dict[str, Value]
    ) -> Value:
        base = self.values[id(node.node)]
        names = [node.attr] if isinstance(node, nodes.Getattr) else self.values[id(node.arg)].texts
        if "update" in names:
            self._bind_members(arguments)
            for field, given in keywords.items():
                self.bind_name("." + field, given)
        arguments = [*arguments, *keywords.values()]
        results = [self._method(node.node, base, name, arguments) for name in names]
        return union(*results) if results else not_followed(base, *arguments)

    def _method(self, target: nodes.Node, base: Value, name: str, arguments: list[Value]) -> Value:
        if name in _ADDING and arguments:
            added = union(self._sequence(arguments), *arguments)
            if isinstance(target, nodes.Name):
                self.bind_name(target.name, replace(added, unknown=True))
            elif isinstance(target, nodes.Getattr):
                self.bind_name("." + target.attr, replace(added, unknown=True))
            return replace(added, unknown=True) if name == "setdefault" else UNKNOWN
        if name in _FILLING:
            self.check_widths(arguments)
        if name in NUMERIC_METHODS:
            return UNKNOWN
        if name == "next":
            return union(base, self.names.get(".next", UNKNOWN))
        if name == "format" and base.has_text:
            return filters.formatted(base, arguments, mark="{")
        if name in METHODS and (base.constants or base.assembled or base.underscored):
            return filters.folded(METHODS[name], base, arguments)
        if name in METHODS and base.unknown:
            mark = name in ("join", "replace") and any(_has_mark(argument) for argument in arguments)
            given = arguments[_GIVING.get(name, slice(0))]
            return replace(handed_on(*given), unknown=True, assembled=False, underscored=mark)
        return not_followed(base, *arguments)

    # Attributes

    def _attribute(self, node: nodes.Getattr) -> Value:
        base = self.values[id(node.node)]
        if _is_inner(node.attr) and not self._is_own_attribute(node):
            self._escape(node.attr)
        self.check_format(base, node.attr)
        if node.attr in _MACRO_TEXTS and any(isinstance(each, MacroName) for each in base.constants):
            return Value(unknown=True, assembled=True)
        if node.attr in _KEPT_METHODS and base.has_text:
            # A method that is kept: it may be called later.
            return Value(unknown=True, assembled=True)
        found = fold(_member(node.attr), base)
        own = self.names.get("." + node.attr)
        result = found if own is None else union(found, own)
        return replace(result, unknown=True, opaque=False, size=self._sizes.get("." + node.attr, 0))

    def _is_own_attribute(self, node: nodes.Getattr) -> bool:
        """`ns._x` of the template's own namespace: there is nothing else to reach there."""
        is_namespace = isinstance(node.node, nodes.Name) and self._namespaces.get(node.node.name, False)
        return is_namespace and "__" not in node.attr and "." + node.attr in self.names

    def _item(self, node: nodes.Getitem) -> Value:
        base = self.values[id(node.node)]
        if isinstance(node.arg, nodes.Slice):
            return self._slice(base, node.arg)
        index = self.values[id(node.arg)]
        self.check_name(index)
        for text in index.texts:
            self.check_format(base, text)
        result = fold(element, base, index)
        if index.unknown or (not result.constants and base.constants):
            result = union(result, members(base), *(constant(*_values_of(each)) for each in base.constants))
        for text in index.texts:
            result = union(result, self.names.get("." + text, Value()))
        opaque_text = base.underscored or base.assembled
        return replace(result, unknown=True, assembled=result.assembled or opaque_text, size=0)

    def _slice(self, base: Value, part: nodes.Slice) -> Value:
        bounds = [
            constant(None) if e is None else self.values[id(e)] for e in (part.start, part.stop, part.step)
        ]
        result = fold(lambda whole, *ends: whole[slice(*ends)], base, *bounds)
        lost = base.underscored or (not result.constants and any(_has_mark(base) for _ in base.constants))
        return replace(result, assembled=result.assembled or lost, underscored=base.underscored)

    def check_name(self, name: Value) -> None:
        """C1: of an attribute's or a key's name."""
        for text in name.texts:
            if _is_inner(text):
                self._escape(text)
        if name.assembled:
            self.refuse("a name that it assembles from its own texts")

    def check_path(self, path: Value) -> None:
        """C1: of `a.b,c`, as filters take it."""
        for text in path.texts:
            for part in text.replace(",", ".").split("."):
                if _is_inner(part.strip()):
                    self._escape(part.strip())
        if path.assembled:
            self.refuse("a name that it assembles from its own texts")

    def check_format(self, base: Value, method: str) -> None:
        """C1: `'{0.__class__}'.format(x)` reads attributes as well."""
        if method not in ("format", "format_map"):
            return
        for text in base.texts:
            for field in text.split("{")[1:]:
                inner = field.split("}")[0]
                if any(map(_is_inner, re.split(r"[.\[\]]", inner)[1:])):
                    self._escape(inner)

    def _escape(self, name: str) -> None:
        self.refuse(f"the attribute {name[:60]!r}")

    def refuse(self, what: str) -> None:
        """C1."""
        if what not in self._escapes:
            self._escapes.append(what)

    def check_widths(self, arguments: Sequence[Value]) -> None:
        """C6: of what fills a text or list up to a width."""
        if any(isinstance(each, int) and each > MAX_RANGE for given in arguments for each in given.constants):
            self._bomb(f"it fills a text or list up to more than {MAX_RANGE} elements")

    def _bomb(self, what: str) -> None:
        if what not in self._bombs:
            self._bombs.append(what)

    def filtered_block(self, node: nodes.Filter, text: Value) -> Value:
        """`{% set x | filter %}`: its innermost filter has no operand but the block."""
        chain = [node]
        while isinstance(chain[-1].node, nodes.Filter):
            chain.append(chain[-1].node)
        for each in reversed(chain):
            text = filters.apply(self, each, text)
        return text


def _as_pairs(value: Value) -> Value:
    """The dictionaries among these, and those that `dict` makes of lists of pairs."""
    found: list[Pairs] = []
    for each in value.constants:
        if isinstance(each, Pairs):
            found.append(each)
        elif isinstance(each, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in each):
            found.append(Pairs(each))
    return replace(constant(*found), unknown=True, assembled=value.assembled)


def _is_inner(name: str) -> bool:
    return name.startswith("_") or name in _INNER


def _member(name: str) -> Callable[[object], object]:
    def of(value: object) -> object:
        if not isinstance(value, Pairs):
            raise TypeError(name)
        return element(value, name)

    return of


def _values_of(value: object) -> list[object]:
    if isinstance(value, Pairs):
        return [each for _, each in value.items]
    return list(items_of(value))[:64] if isinstance(value, str | tuple) else []


def _has_mark(value: Value) -> bool:
    return value.underscored or any(
        "_" in text_of(each) for each in value.constants if not isinstance(each, range)
    )
