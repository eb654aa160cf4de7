"""Rule C6 on the tree: macros without an end, loops in loops, texts that double in a loop."""

from __future__ import annotations

from dataclasses import dataclass, field

from jinja2 import nodes

from ingest_service.formats.templates.evaluate import Evaluation
from ingest_service.formats.templates.tree import bodies, expressions, post_order

#: Nodes that are gone over, with loops of a known length multiplied and macros expanded.
MAX_WORK = 50_000_000
_GROWING = (nodes.Concat, nodes.Add, nodes.Mul, nodes.List, nodes.Tuple)


@dataclass(slots=True)
class _CallSite:
    """A call within a macro (or outside of all), and what has to hold for it to be reached."""

    callee: str
    call: nodes.Call
    guards: tuple[nodes.Node, ...]


@dataclass(slots=True)
class _Body:
    """A macro, or what is outside of all macros."""

    parameters: tuple[str, ...] = ()
    calls: list[_CallSite] = field(default_factory=list)


def find_bombs(template: nodes.Template, found: Evaluation) -> list[str]:
    """Why it would take an engine down; empty if nothing is found."""
    collected = _Collector(found)
    collected.statements(template.body, collected.main, ())
    bombs = []
    endless = _endless(collected, found)
    if endless:
        bombs.append(f"the macro {endless!r} calls itself without an end")
    elif _Work(template, found).total() > MAX_WORK:
        bombs.append("its loops and macros multiply to more than can be rendered")
    if collected.doubled:
        bombs.append(f"{collected.doubled!r} doubles with each turn of a loop")
    return bombs


class _Collector:
    """Every call, by the macro that it is in."""

    def __init__(self, found: Evaluation) -> None:
        self._found = found
        self.main = _Body()
        self.macros: dict[str, _Body] = {}
        self.doubled = ""

    def statements(
        self, body: list[nodes.Node], owner: _Body, guards: tuple[nodes.Node, ...], *, in_loop: bool = False
    ) -> None:
        for statement in body:
            self._statement(statement, owner, guards, in_loop=in_loop)

    def _statement(
        self, statement: nodes.Node, owner: _Body, guards: tuple[nodes.Node, ...], *, in_loop: bool
    ) -> None:
        for expression in expressions(statement):
            self._expression(expression, owner, guards)
        if in_loop and isinstance(statement, nodes.Assign):
            self._check_doubling(statement)
        if isinstance(statement, nodes.Macro):
            parameters = tuple(argument.name for argument in statement.args)
            inner = self.macros.setdefault(statement.name, _Body(parameters))
            self.statements(statement.body, inner, ())
        elif isinstance(statement, nodes.If):
            self._branches(statement, owner, guards, in_loop=in_loop)
        elif isinstance(statement, nodes.For):
            times = self._found.loop_times.get(id(statement), 0)
            inside = guards if times and statement.test is None else (*guards, statement.iter)
            self.statements(statement.body, owner, inside, in_loop=True)
            self.statements(statement.else_, owner, (*guards, statement.iter), in_loop=in_loop)
        else:
            for inner_body in bodies(statement):
                self.statements(inner_body, owner, guards, in_loop=in_loop)

    def _branches(
        self, statement: nodes.If, owner: _Body, guards: tuple[nodes.Node, ...], *, in_loop: bool
    ) -> None:
        if id(statement) in self._found.always_true:
            self.statements(statement.body, owner, guards, in_loop=in_loop)
            return
        guards = (*guards, statement.test)
        self.statements(statement.body, owner, guards, in_loop=in_loop)
        for branch in statement.elif_:
            self._statement(branch, owner, guards, in_loop=in_loop)
        self.statements(statement.else_, owner, guards, in_loop=in_loop)

    def _expression(self, expression: nodes.Node, owner: _Body, guards: tuple[nodes.Node, ...]) -> None:
        conditions = guards
        order = post_order(expression)
        for node in order:
            # Within one expression it is not told apart which part a condition is for.
            if isinstance(node, nodes.And | nodes.Or):
                conditions = (*conditions, node.left)
            elif isinstance(node, nodes.CondExpr) and id(node) not in self._found.always_true:
                conditions = (*conditions, node.test)
        for node in order:
            if isinstance(node, nodes.Call):
                for callee in self._found.called.get(id(node), ()):
                    owner.calls.append(_CallSite(callee, node, conditions))

    def _check_doubling(self, statement: nodes.Assign) -> None:
        target = statement.target
        name = target.name if isinstance(target, nodes.Name) else ""
        attribute = target.attr if isinstance(target, nodes.NSRef) else ""
        times, stack = 0, [statement.node]
        while stack:
            node = stack.pop()
            if isinstance(node, _GROWING):
                stack.extend(node.iter_child_nodes())
            elif name and isinstance(node, nodes.Name):
                times += node.name == name
            elif attribute and isinstance(node, nodes.Getattr):
                times += node.attr == attribute and isinstance(node.node, nodes.Name)
        if times > 1:
            self.doubled = name or attribute


def _endless(collected: _Collector, found: Evaluation) -> str:
    """A macro that is called and comes back to itself with nothing changed on the way."""
    reached = _reached(collected)
    edges = {
        name: [site.callee for site in body.calls if _is_stuck(site, body, collected, found)]
        for name, body in collected.macros.items()
        if name in reached
    }
    for start, called in edges.items():
        seen: set[str] = set()
        stack = list(called)
        while stack:
            name = stack.pop()
            if name == start:
                return start
            if name not in seen:
                seen.add(name)
                stack.extend(edges.get(name, ()))
    return ""


def _reached(collected: _Collector) -> set[str]:
    reached: set[str] = set()
    stack = [site.callee for site in collected.main.calls]
    while stack:
        name = stack.pop()
        if name not in reached and name in collected.macros:
            reached.add(name)
            stack.extend(site.callee for site in collected.macros[name].calls)
    return reached


def _is_stuck(site: _CallSite, body: _Body, collected: _Collector, found: Evaluation) -> bool:
    """Whether it is reached again as it was: by no condition, or by one that the call leaves as it is."""
    if not site.guards:
        return True
    callee = collected.macros.get(site.callee)
    if callee is None or site.call.dyn_args is not None or site.call.dyn_kwargs is not None:
        return False
    given = dict(zip(callee.parameters, site.call.args, strict=False))
    given |= {keyword.key: keyword.value for keyword in site.call.kwargs}
    kept: set[str] = set()
    for parameter, argument in given.items():
        if isinstance(argument, nodes.Name) and argument.name in (*body.parameters, *collected.macros):
            if argument.name == parameter:
                kept.add(parameter)
        elif not isinstance(argument, nodes.Const):
            return False
    for guard in site.guards:
        for node in post_order(guard):
            if isinstance(node, nodes.Call) and id(node) in found.called and found.called[id(node)]:
                continue
            if isinstance(node, nodes.Name) and node.name not in kept and node.name in found.assigned:
                return False
    return True


class _Work:
    """How many nodes are gone over at most, as far as it is known."""

    def __init__(self, template: nodes.Template, found: Evaluation) -> None:
        self._found = found
        self._template = template
        self._bodies: dict[str, list[nodes.Node]] = {m.name: m.body for m in template.find_all(nodes.Macro)}
        self._known: dict[str, int] = {}

    def total(self) -> int:
        return self._sum(self._template.body)

    def _sum(self, body: list[nodes.Node]) -> int:
        return sum(self._statement(statement) for statement in body)

    def _statement(self, statement: nodes.Node) -> int:
        work = 1 + sum(self._expression(expression) for expression in expressions(statement))
        if isinstance(statement, nodes.Macro):
            return work
        # Every turn of a loop costs something, also of one around nothing.
        within = 1 + sum(self._sum(body) for body in bodies(statement))
        return work + within * self._found.loop_times.get(id(statement), 1)

    def _expression(self, expression: nodes.Node) -> int:
        order = post_order(expression)
        return len(order) + sum(self._macros(node) for node in order if isinstance(node, nodes.Call))

    def _macros(self, call: nodes.Call) -> int:
        return max((self._macro(name) for name in self._found.called.get(id(call), ())), default=0)

    def _macro(self, name: str) -> int:
        if name not in self._known:
            # Of a macro that comes back to itself each is counted once.
            self._known[name] = 0
            self._known[name] = min(MAX_WORK + 1, self._sum(self._bodies.get(name, [])))
        return self._known[name]
