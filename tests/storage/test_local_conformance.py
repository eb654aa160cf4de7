"""The local store does what every store must do, in both ways of writing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest_service.storage import BlobStore, DirectIo, FileExecutor, LocalBlobStore
from tests.storage.conformance import BlobStoreConformance


class TestLocalBlobStore(BlobStoreConformance):
    """Past the page cache, where the file system of the temporary directory can."""

    @pytest.fixture
    async def again(self, store: BlobStore, data_dir: Path, executor: FileExecutor) -> BlobStore:
        second = LocalBlobStore(data_dir, executor)
        await second.prepare()
        return second


class TestBuffered(BlobStoreConformance):
    """Through the page cache."""

    @pytest.fixture
    async def store(self, data_dir: Path, executor: FileExecutor) -> BlobStore:
        buffered = LocalBlobStore(data_dir, executor, direct_io=DirectIo.OFF)
        await buffered.prepare()
        return buffered

    @pytest.fixture
    async def again(self, store: BlobStore, data_dir: Path, executor: FileExecutor) -> BlobStore:
        return LocalBlobStore(data_dir, executor, direct_io=DirectIo.OFF)
