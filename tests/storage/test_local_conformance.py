"""The local store does what every store must do."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest_service.storage import BlobStore, FileExecutor, LocalBlobStore
from tests.storage.conformance import BlobStoreConformance


class TestLocalBlobStore(BlobStoreConformance):
    @pytest.fixture
    async def again(self, store: BlobStore, data_dir: Path, executor: FileExecutor) -> BlobStore:
        second = LocalBlobStore(data_dir, executor)
        await second.prepare()
        return second
