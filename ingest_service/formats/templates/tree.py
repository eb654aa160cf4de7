"""Ways over Jinja2's tree that need no recursion within expressions."""

from __future__ import annotations

from collections.abc import Iterator

from jinja2 import nodes

#: Fields of a statement that hold further statements.
_BODIES = ("body", "elif_", "else_")


def bodies(statement: nodes.Node) -> Iterator[list[nodes.Node]]:
    """The statements within it, in order."""
    for name in _BODIES:
        body = getattr(statement, name, None)
        if body:
            yield body


def expressions(statement: nodes.Node) -> Iterator[nodes.Node]:
    """Its own expressions, in order."""
    for name, field in statement.iter_fields():
        if name in _BODIES:
            continue
        for each in field if isinstance(field, list) else [field]:
            if isinstance(each, nodes.Node):
                yield each


def post_order(expression: nodes.Node) -> list[nodes.Node]:
    """Every node after all that it is made of."""
    order, stack = [], [expression]
    while stack:
        node = stack.pop()
        order.append(node)
        stack.extend(node.iter_child_nodes())
    order.reverse()
    return order
