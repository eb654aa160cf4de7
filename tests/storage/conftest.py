"""A local store in a directory of its own; no test may leave a descriptor in it open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ingest_service.storage import FileExecutor, LocalBlobStore
from tests.storage.descriptors import open_files


@pytest.fixture(autouse=True)
def nothing_left_open(tmp_path: Path) -> Iterator[None]:
    """Set up first, so checked after every other fixture has cleaned up."""
    yield
    assert open_files(tmp_path) == []


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    return path


@pytest.fixture
async def executor() -> AsyncIterator[FileExecutor]:
    threads = FileExecutor(4)
    yield threads
    threads.close()


@pytest.fixture
async def store(data_dir: Path, executor: FileExecutor) -> LocalBlobStore:
    local = LocalBlobStore(data_dir, executor)
    await local.prepare()
    return local
