"""The rules of scripts/check_tree.py: a small tree that breaks each of them, and our own that keeps them."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tests.house.source import ROOT


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_tree", ROOT / "scripts/check_tree.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_CHECK = _load()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An empty repository."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, stdin=subprocess.DEVNULL)
    return tmp_path


def _put(tree: Path, name: str, text: str | bytes) -> None:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


def _problems(tree: Path) -> list[str]:
    return list(_CHECK.problems_of(tree))


def test_a_small_clean_tree_has_no_problem(tree: Path) -> None:
    assert _problems(tree) == []
    _put(tree, "a.py", "x = 1\n" * 100)
    _put(tree, "b.bin", b"\xff\xfe\x00")
    assert _problems(tree) == []


def test_a_file_that_is_too_long(tree: Path) -> None:
    _put(tree, "long.py", "x = 1\n" * 601)
    _put(tree, "small.py", "x = 1\n")
    _put(tree, "smaller.py", "")
    _put(tree, "long.md", "words\n" * 5000)
    _put(tree, f"{_CHECK.GENERATED}a_pb2.py", "x = 1\n" * 5000)
    (problem,) = _problems(tree)
    assert problem.startswith("long.py: 601 lines")


def test_files_that_are_long_on_the_whole(tree: Path) -> None:
    for index in range(3):
        _put(tree, f"{index}.py", "x = 1\n" * 151)
    assert _problems(tree) == ["median file size 151 lines, more than 150"]


# Written in two parts, so that this file does not break the rule itself.
@pytest.mark.parametrize(
    "text",
    ["/wo" + "rk/main/x", "/fa" + "rm/x", "/opt/py" + "pi/simple", "/opt/whe" + "els/x", "/ro" + "ot/x"],
)
@pytest.mark.parametrize("name", ["a.py", "Makefile", "docs/x.md", "new.lock"])
def test_a_machines_path(tree: Path, name: str, text: str) -> None:
    _put(tree, name, f"see {text}\n")
    (problem,) = _problems(tree)
    assert problem.startswith(f"{name}: a machine's path")


def test_ollamas_own_directory_is_no_machines_path(tree: Path) -> None:
    _put(tree, "docker-compose.yml", "volumes: [ollama:/ro" + "ot/.ollama]\n")
    assert _problems(tree) == []


@pytest.mark.parametrize(
    "host",
    [
        "py" + "pi.org/simple",
        "files.python" + "hosted.org",
        "registry.n" + "pmjs.org",
        "proxy.go" + "lang.org",
    ],
)
def test_a_registrys_address(tree: Path, host: str) -> None:
    _put(tree, "x.lock", f"--index https://{host}/x\n")
    (problem,) = _problems(tree)
    assert problem.startswith("x.lock: a registry's address")


def test_what_git_ignores_is_not_looked_at_and_what_it_would_add_is(tree: Path) -> None:
    _put(tree, ".gitignore", "ignored/\n")
    for name in ("ignored/a.md", "b.md"):
        _put(tree, name, "/wo" + "rk/x\n")
    assert [problem.partition(":")[0] for problem in _problems(tree)] == ["b.md"]


def test_our_own_tree_keeps_the_rules() -> None:
    assert _problems(ROOT) == []
