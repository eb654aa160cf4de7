"""Python files of the house, parsed."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HOUSE = ROOT / "ingest_service"


@functools.cache
def modules(below: str = "") -> dict[str, ast.Module]:
    """Every module of the house, or of one room: its path in the house and its tree."""
    if below:
        return {
            name: tree for name, tree in modules().items() if name.startswith((f"{below}/", f"{below}.py"))
        }
    paths = sorted(HOUSE.rglob("*.py"))
    return {str(path.relative_to(HOUSE)): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


@functools.cache
def imports(tree: ast.Module) -> frozenset[str]:
    """Full names of all that is imported, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def dotted(node: ast.expr) -> str:
    """`os.path.exists` for that expression; `?.read_text` for an attribute of something else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return "?"


def calls_in_coroutines(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that run on the event loop: in an `async def`, but not in a function or lambda within it.

    What is defined within is handed to somebody, here always to the executor or the database.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef):
            for statement in node.body:
                yield from _calls(statement)


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    if isinstance(node, ast.Call):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from _calls(child)
