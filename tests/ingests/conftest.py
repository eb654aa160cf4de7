"""The domain's parts on both databases; no test may leave a file open, a task running or a partial held."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ingest_service.storage import FileExecutor
from tests.ingests.parts import Parts, running_parts
from tests.storage.descriptors import open_files


@pytest.fixture(autouse=True)
def nothing_left_open(tmp_path: Path) -> Iterator[None]:
    """Set up first, so checked after every other fixture has cleaned up."""
    yield
    assert open_files(tmp_path) == []


@pytest.fixture(autouse=True)
def nobody_leaves_a_task(no_task_left: None) -> None:
    """Holds for every test here."""


@pytest.fixture
async def executor() -> AsyncIterator[FileExecutor]:
    threads = FileExecutor(4)
    yield threads
    threads.close()


@pytest.fixture
async def parts(no_task_left: None, database_url: str, tmp_path: Path) -> AsyncIterator[Parts]:
    """On each database."""
    async with running_parts(database_url, tmp_path / "data") as running:
        yield running


@pytest.fixture
async def parts_on_sqlite(no_task_left: None, sqlite_url: str, tmp_path: Path) -> AsyncIterator[Parts]:
    """For tests whose subject is not the database."""
    async with running_parts(sqlite_url, tmp_path / "data") as running:
        yield running
