"""Databases for children that are killed, and no descriptor or task left behind by a test."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.postgres import PostgresCluster

NewUrl = Callable[[str], str]


@pytest.fixture(autouse=True)
def nobody_leaves_a_task(no_task_left: None) -> None:
    """Holds for every test here."""


@pytest.fixture
def new_url(postgres: PostgresCluster, migrated_sqlite: Path, tmp_path: Path) -> NewUrl:
    """`new_url("sqlite")` or `new_url("postgresql")`: a migrated database of its own."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            path = tmp_path / f"{uuid.uuid4().hex}.db"
            shutil.copy(migrated_sqlite, path)
            return f"sqlite+aiosqlite:///{path}"
        return postgres.create_database(f"fault_{uuid.uuid4().hex}", "migrated")

    return make


@pytest.fixture
def needs_root() -> None:
    """Faults of the system's own; as root on Linux a missing one is a failure, not a skip."""
    if os.geteuid() != 0:
        pytest.skip("only root can do this")
