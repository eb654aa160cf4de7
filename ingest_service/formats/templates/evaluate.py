"""Rule C1: goes over a template's tree and works out which attribute names it may reach.

Variables have the union of all that is assigned to them anywhere, whatever their scope: a few rounds over the
tree, until nothing is added. Names are bounded (`values`), so is each round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jinja2 import nodes

from ingest_service.formats.templates.expressions import CALLER_TEXT, Expressions
from ingest_service.formats.templates.tree import bodies, expressions, post_order
from ingest_service.formats.templates.values import MacroName, Value, constant, length_of, members, union

_MAX_ROUNDS = 6


@dataclass(slots=True)
class Evaluation:
    """What was found: why it is refused, and what is known of conditions, loops and calls."""

    escapes: list[str] = field(default_factory=list)
    bombs: list[str] = field(default_factory=list)
    #: By the id of a node: conditions that always hold, least times that a loop runs, macros that are called.
    always_true: set[int] = field(default_factory=set)
    loop_times: dict[int, int] = field(default_factory=dict)
    called: dict[int, frozenset[str]] = field(default_factory=dict)
    assigned: set[str] = field(default_factory=set)


def evaluate(template: nodes.Template) -> Evaluation:
    """Works it out."""
    found = Evaluation()
    walker = _Walker(template, found)
    for _ in range(_MAX_ROUNDS):
        walker.run()
        if found.escapes or found.bombs or not walker.scope.changed:
            break
    found.assigned = set(walker.scope.names)
    return found


class _Walker:
    def __init__(self, template: nodes.Template, found: Evaluation) -> None:
        self._template = template
        self._found = found
        self.scope = Expressions(found.escapes, found.bombs, list(template.find_all(nodes.Macro)))

    def run(self) -> None:
        self.scope.changed = False
        self._body(self._template.body)
        self.scope.counts_sizes = False

    def _body(self, statements: Sequence[nodes.Node]) -> None:
        for statement in statements:
            self._statement(statement)

    def _statement(self, statement: nodes.Node) -> None:
        values = {}
        for expression in expressions(statement):
            values[id(expression)] = self._expression(expression)
        self._bind(statement, values)
        for body in bodies(statement):
            self._body(body)
        if isinstance(statement, nodes.Macro):
            self.scope.end_macro(statement)
        elif isinstance(statement, nodes.AssignBlock):
            self.scope.bind(statement.target, self._text_of(statement.body, statement.filter))
        elif isinstance(statement, nodes.CallBlock):
            self.scope.bind_name(CALLER_TEXT, self._text_of(statement.body, None))

    def _expression(self, expression: nodes.Node) -> Value:
        value = self.scope.value(expression)
        for node in post_order(expression):
            if isinstance(node, nodes.Call):
                callee = self.scope.values[id(node.node)]
                names = frozenset(each.name for each in callee.constants if isinstance(each, MacroName))
                self._found.called[id(node)] = names | self._found.called.get(id(node), frozenset())
            elif isinstance(node, nodes.CondExpr) and self.scope.values[id(node.test)].is_true:
                self._found.always_true.add(id(node))
        return value

    def _bind(self, statement: nodes.Node, values: dict[int, Value]) -> None:
        scope = self.scope
        if isinstance(statement, nodes.Assign):
            value = values[id(statement.node)]
            if isinstance(statement.target, nodes.Name) and _is_namespace(statement.node):
                scope.bind_name(statement.target.name, value, is_namespace=True)
            else:
                scope.bind(statement.target, value)
        elif isinstance(statement, nodes.For):
            self._bind_loop(statement, values[id(statement.iter)])
        elif isinstance(statement, nodes.If):
            if values[id(statement.test)].is_true:
                self._found.always_true.add(id(statement))
            else:
                self._found.always_true.discard(id(statement))
        elif isinstance(statement, nodes.Macro):
            scope.bind_name(statement.name, replace(constant(MacroName(statement.name)), opaque=True))
            scope.bind_defaults(statement.args, [values[id(default)] for default in statement.defaults])
        elif isinstance(statement, nodes.CallBlock):
            scope.bind_defaults(statement.args, [values[id(default)] for default in statement.defaults])
            scope.caller_arguments.extend(argument.name for argument in statement.args)
        elif isinstance(statement, nodes.With):
            for target, given in zip(statement.targets, statement.values, strict=True):
                scope.bind(target, values[id(given)])

    def _bind_loop(self, statement: nodes.For, iterated: Value) -> None:
        scope = self.scope
        scope.bind(statement.target, members(iterated))
        if iterated.has_text:
            for name in (".previtem", ".nextitem"):
                scope.bind_name(name, members(iterated))
        if statement.recursive and statement.target not in scope.recursive_targets:
            scope.recursive_targets.append(statement.target)
        times = 0 if iterated.unknown else min(map(length_of, iterated.constants), default=0)
        if times:
            self._found.loop_times[id(statement)] = times
        else:
            self._found.loop_times.pop(id(statement), None)

    def _text_of(self, body: Sequence[nodes.Node], applied: nodes.Filter | None) -> Value:
        """What `{% set x %}...{% endset %}` and a call block collect: all, or any part if it branches."""
        parts = [
            node for each in body for node in ([each] if not isinstance(each, nodes.Output) else each.nodes)
        ]
        known = [self.scope.values.get(id(part)) for part in parts]
        straight = [value for value in known if value is not None]
        text = self.scope.joined(straight)
        if len(straight) < len(parts):
            inner = [
                self.scope.values[id(part)]
                for each in body
                for output in each.find_all(nodes.Output)
                for part in output.nodes
                if id(part) in self.scope.values
            ]
            text = replace(union(text, *inner), unknown=True)
        if applied is not None:
            text = self.scope.filtered_block(applied, text)
        return text


def _is_namespace(node: nodes.Node) -> bool:
    return (
        isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == "namespace"
    )
