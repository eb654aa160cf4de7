"""Nothing on the event loop waits for a disk, a socket or a clock (design.md section 4)."""

from __future__ import annotations

import ast

import pytest

from tests.house.source import calls_in_coroutines, dotted, imports, modules

_BLOCKING = {
    "open",
    "input",
    "time.sleep",
    "subprocess.run",
    "subprocess.check_output",
    "socket.create_connection",
    "sqlite3.connect",
    "hashlib.file_digest",
}
_BLOCKING_MODULES = ("shutil.", "tempfile.", "os.path.", "fcntl.", "urllib.request.")
#: `os` functions for which the kernel does not wait; close does not, on the local disk that we insist on.
_HARMLESS_OS = {"os.strerror", "os.getpid", "os.fspath", "os.urandom", "os.close"}
#: Methods of Path that look at the disk.
_PATH_METHODS = {
    "chmod", "exists", "glob", "hardlink_to", "is_dir", "is_file", "is_mount", "is_symlink", "iterdir",
    "lstat", "mkdir", "read_bytes", "read_text", "rename", "resolve", "rglob", "rmdir", "samefile", "stat",
    "symlink_to", "touch", "unlink", "write_bytes", "write_text",
}  # fmt: skip


def _blocks(call: ast.Call, *, is_awaited: bool) -> bool:
    name = dotted(call.func)
    method = name.rpartition(".")[2]
    if name in _BLOCKING or name.startswith(_BLOCKING_MODULES):
        return True
    if name.startswith("os."):
        return name not in _HARMLESS_OS
    return "." in name and method in _PATH_METHODS and not is_awaited


def blocking(tree: ast.Module) -> list[str]:
    """Blocking calls in coroutines, as `line: name`."""
    awaited = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Await)}
    return [
        f"{call.lineno}: {dotted(call.func)}"
        for call in calls_in_coroutines(tree)
        if _blocks(call, is_awaited=id(call) in awaited)
    ]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("open('x')", ["open"]),
        ("with open('x') as f: pass", ["open"]),
        ("time.sleep(1)", ["time.sleep"]),
        ("os.stat('x')", ["os.stat"]),
        ("if await f(os.path.exists(p)): pass", ["os.path.exists"]),
        ("self._directory.mkdir()", ["self._directory.mkdir"]),
        ("(a / b).read_text()", ["?.read_text"]),
        ("shutil.rmtree(p)", ["shutil.rmtree"]),
        ("await executor.run(os.stat, 'x')", []),
        ("await executor.run(lambda: os.stat('x'))", []),
        ("await partial.unlink()", []),
        ("os.strerror(5)", []),
    ],
)
def test_the_search_itself(body: str, found: list[str]) -> None:
    tree = ast.parse(f"async def f():\n    {body}\n")
    assert [line.partition(": ")[2] for line in blocking(tree)] == found


def test_no_coroutine_makes_a_blocking_call() -> None:
    found = {module: lines for module, tree in modules().items() if (lines := blocking(tree))}
    assert found == {}


def test_nobody_sleeps_or_asks_synchronously() -> None:
    for module, tree in modules().items():
        assert not imports(tree) & {"requests", "urllib3", "urllib.request", "http.client"}, module
        names = {dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert "time.sleep" not in names, module


def test_database_work_awaits_nothing_but_the_database() -> None:
    """No transaction spans network or file I/O: what is handed to it awaits its transaction only."""
    broken = []
    for module, tree in modules().items():
        for node in ast.walk(tree):
            is_work = isinstance(node, ast.AsyncFunctionDef) and any(
                arg.arg == "tx" for arg in node.args.args
            )
            if not is_work:
                continue
            for inner in ast.walk(node):
                if isinstance(inner, ast.Await):
                    names = {name.id for name in ast.walk(inner.value) if isinstance(name, ast.Name)}
                    if "tx" not in names:
                        broken.append(f"{module}:{inner.lineno}")
    assert broken == []
