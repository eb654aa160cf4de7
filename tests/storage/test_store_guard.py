"""A data directory that is replaced while the service runs is neither written to nor believed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from ingest_service.storage import FileExecutor, LocalBlobStore, LocalScanner
from ingest_service.storage.identity import write_store_id
from ingest_service.storage.store_guard import StoreGuard
from ingest_service.vocabulary.errors import StoreReplaced
from tests.support.files import digest

ID = "0123456789abcdef"
DATA = b"stored bytes"


async def true() -> bool:
    return True


async def read_blob(store: LocalBlobStore) -> None:
    async with store.open_blob(digest(DATA)):
        pass


CALLS: dict[str, Callable[[LocalBlobStore], Any]] = {
    "create_partial": lambda store: store.create_partial(ID),
    "open_partial": lambda store: store.open_partial(ID),
    "remove_partial": lambda store: store.remove_partial(ID),
    "partial_ids": lambda store: store.partial_ids(),
    "publish": lambda store: store.publish(ID, digest(DATA)),
    "blob_size_bytes": lambda store: store.blob_size_bytes(digest(DATA)),
    "open_blob": read_blob,
    "blob_digests": lambda store: store.blob_digests(),
    "remove_blob": lambda store: store.remove_blob(digest(DATA), true),
    "quarantine_blob": lambda store: store.quarantine_blob(digest(DATA), true),
    "probe": lambda store: store.probe(),
}


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[tuple[LocalBlobStore, StoreGuard, Path]]:
    """A store with one blob and one partial, in a directory that is then replaced by a look-alike."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    write_store_id(data_dir, "ours")
    guard = StoreGuard(data_dir)
    executor = FileExecutor(1)
    store = LocalBlobStore(data_dir, executor, guard=guard)
    await store.prepare()
    guard.expected = "ours"
    await (await store.create_partial(ID)).close()
    await store.publish(ID, digest(DATA))
    await (await store.create_partial(ID)).close()
    await store.probe()
    yield store, guard, data_dir
    executor.close()


def replace(data_dir: Path, store_id: str | None) -> None:
    """Puts a directory that looks right where the store was."""
    data_dir.rename(data_dir.with_name("real"))
    shutil.copytree(data_dir.with_name("real"), data_dir)
    (data_dir / "store-id").unlink()
    if store_id is not None:
        write_store_id(data_dir, store_id)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_every_call_is_refused_in_a_look_alike(
    guarded: tuple[LocalBlobStore, StoreGuard, Path], call: Callable[[LocalBlobStore], Any]
) -> None:
    store, _, data_dir = guarded
    replace(data_dir, None)
    before = sorted(str(path) for path in data_dir.rglob("*"))
    with pytest.raises(StoreReplaced, match="has no store id, but this service opened store ours"):
        await call(store)
    assert sorted(str(path) for path in data_dir.rglob("*")) == before


async def test_another_store_in_its_place_is_named(
    guarded: tuple[LocalBlobStore, StoreGuard, Path],
) -> None:
    store, _, data_dir = guarded
    replace(data_dir, "theirs")
    with pytest.raises(StoreReplaced, match="is store theirs, but this service opened store ours"):
        await store.probe()


async def test_the_scanner_finds_no_blob_missing_in_a_look_alike(
    guarded: tuple[LocalBlobStore, StoreGuard, Path],
) -> None:
    _, guard, data_dir = guarded
    replace(data_dir, None)
    scanner = LocalScanner(data_dir, guard)
    with pytest.raises(StoreReplaced):
        async with scanner.open(digest(DATA)):
            pass
    scanner.close()


async def test_the_right_directory_is_used_again_once_it_is_back(
    guarded: tuple[LocalBlobStore, StoreGuard, Path],
) -> None:
    store, _, data_dir = guarded
    replace(data_dir, None)
    shutil.rmtree(data_dir)
    data_dir.with_name("real").rename(data_dir)
    await store.publish(ID, digest(DATA))
    assert await store.blob_size_bytes(digest(DATA)) == 0
