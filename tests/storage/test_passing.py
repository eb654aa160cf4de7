"""What is read once does not stay in the page cache; what is read is right wherever the reading begins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingest_service.storage import FileExecutor, LocalBlobStore, passing
from tests.ingests.parts import new_id
from tests.storage.resident import keeps_files_in_memory, resident_bytes
from tests.support.files import digest

MEBIBYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "_KEPT_BYTES", 4 * MEBIBYTE)


async def test_a_blob_that_was_read_leaves_only_its_last_bytes_in_memory(
    tmp_path: Path, executor: FileExecutor
) -> None:
    if keeps_files_in_memory(tmp_path):
        pytest.skip("this file system keeps its files in memory")
    data = os.urandom(40 * MEBIBYTE)
    store = LocalBlobStore(tmp_path, executor)
    await store.prepare()
    partial = await store.create_partial(new_id())
    await partial.write(0, [data])
    await store.publish(partial.partial_id, digest(data))
    await partial.close()
    (path,) = (tmp_path / "blobs").iterdir()
    assert path.read_bytes() == data
    # Somebody else has read it: all of it is in memory now.
    assert resident_bytes(path) == len(data)
    async with store.open_blob(digest(data)) as blob:
        offset = 0
        while offset < len(data):
            piece = await blob.read(offset, MEBIBYTE)
            assert piece == data[offset : offset + MEBIBYTE]
            offset += len(piece)
    assert resident_bytes(path) <= 9 * MEBIBYTE


def test_a_reader_may_jump(tmp_path: Path) -> None:
    data = os.urandom(20 * MEBIBYTE)
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("rb") as file:
        reader = passing.PassingReader(file.fileno())
        for offset in (0, 15 * MEBIBYTE, MEBIBYTE, 3, 19 * MEBIBYTE, 20 * MEBIBYTE):
            assert reader.read(10 * MEBIBYTE, offset) == data[offset : offset + 10 * MEBIBYTE]
