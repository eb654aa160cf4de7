"""What we depend on: each with a reason written down, pinned with hashes, from no named registry."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.house.source import ROOT

_LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def _runtime(project: str) -> set[str]:
    data = tomllib.loads((ROOT / project).read_text(encoding="utf-8"))
    return {_name(requirement) for requirement in data["project"]["dependencies"]} - {"model-ingest"}


@pytest.mark.parametrize("project", ["pyproject.toml", "clients/python/pyproject.toml"])
def test_every_runtime_dependency_has_its_reason(project: str) -> None:
    page = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    # | name, name | words |
    rows = re.findall(r"^\| ([a-z][^|]*) \| [^|]{6,} \|$", page, re.MULTILINE)
    told = {_name(name) for row in rows for name in row.split(", ")}
    assert _runtime(project) - told == set()


def test_there_are_locks() -> None:
    assert [path.name for path in _LOCKS] == [
        "bench.lock",
        "build.lock",
        "dev.lock",
        "fuzz.lock",
        "runtime.lock",
    ]


@pytest.mark.parametrize("lock", _LOCKS, ids=lambda path: path.name)
def test_a_lock_names_no_address(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", text)


@pytest.mark.parametrize("lock", _LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_each_with_its_hashes(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert entries
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+(\[[^]]+\])?==[^ ;]+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry


def test_the_runtime_lock_holds_all_of_them() -> None:
    text = (ROOT / "requirements/runtime.lock").read_text(encoding="utf-8")
    locked = {_name(name) for name in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]+\])?==", text, re.MULTILINE)}
    for project in ("pyproject.toml", "clients/python/pyproject.toml"):
        assert _runtime(project) <= locked
