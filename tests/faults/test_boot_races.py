"""What may happen between a boot's look at the blobs and what it then does about them.

Breaks when: the boot does not ask again under the digest's lock, or believes a look that is out of date.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import update

from ingest_service.database import Database, Transaction
from ingest_service.database.tables import files
from ingest_service.storage import LocalBlobStore
from ingest_service.vocabulary.states import FileState
from tests.conftest import StartService
from tests.faults.client import STORED
from tests.faults.crash_states import wreck
from tests.faults.invariants import quarantined
from tests.support.files import digest, gguf, push
from tests.support.service import RunningService

pytestmark = pytest.mark.extended_when("postgresql")

DATA = gguf(300_000)


async def _yes() -> bool:
    return True


async def _forget_files(tx: Transaction) -> None:
    """The blobs' references go, as history clean-up will take them."""
    await tx.files._statements.run(update(files).values(state="FAILED"))


async def stray_blob(service: RunningService) -> Path:
    """The bytes of DATA among the blobs, and nobody knows them."""
    path = service.settings.data_dir / "blobs" / digest(DATA).replace(":", "-")
    path.write_bytes(DATA)
    return path


async def test_a_blob_that_becomes_known_between_the_look_and_the_lock_is_not_quarantined(
    database_url: str, start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start_service(database_url=database_url)
    path = await stray_blob(service)
    store: LocalBlobStore = service.service.store
    quarantine = store.quarantine_blob

    async def late(sha256: str, unknown: Callable[[], Awaitable[bool]]) -> str | None:
        assert (await push(service.ingests, DATA, "meanwhile")).files[0].state == STORED
        return await quarantine(sha256, unknown)

    monkeypatch.setattr(store, "quarantine_blob", late)
    await service.service.recovery.at_boot()
    assert quarantined(service.settings.data_dir) == []
    assert path.read_bytes() == DATA
    assert (await push(service.ingests, DATA, "later", sha256=digest(DATA))).files[0].deduplicated


async def test_a_blob_that_is_being_published_is_not_quarantined(
    database_url: str, start_service: StartService
) -> None:
    """Another process has renamed it, and has not told of it yet; it holds the partial's lock no more."""
    service = await start_service(database_url=database_url)
    left = await wreck(service, DATA, state=FileState.PUBLISHING, blob=DATA)
    # As a boot that has looked at the files before this one was there.
    await service.service.recovery._compare_blobs()
    assert quarantined(left.data_dir) == []
    assert left.blob.read_bytes() == DATA


async def test_a_blob_that_another_process_is_at_is_left_where_it_is(
    sqlite_url: str, start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start_service()
    path = await stray_blob(service)
    monkeypatch.setattr("ingest_service.storage.local._LOCK_WAIT_SECONDS", 0.1)
    other = LocalBlobStore(service.settings.data_dir, service.service.executor)
    async with other.digest_lock(digest(DATA)):
        await service.service.recovery.at_boot()
    assert quarantined(service.settings.data_dir) == []
    assert path.read_bytes() == DATA
    await service.service.recovery.at_boot()
    assert quarantined(service.settings.data_dir) == [path.name]


@pytest.mark.extended_unless("gone")
@pytest.mark.parametrize("harm", ["gone", "cut"])
async def test_a_blob_that_is_healed_between_the_look_and_the_mark_is_not_called_corrupt(
    harm: str, database_url: str, start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start_service(database_url=database_url)
    await push(service.ingests, DATA, "first")
    blob = service.settings.data_dir / "blobs" / digest(DATA).replace(":", "-")
    blob.unlink() if harm == "gone" else blob.write_bytes(DATA[:-1])
    store: LocalBlobStore = service.service.store
    look, looks = store.blob_size_bytes, 0

    async def then_healed(sha256: str) -> int | None:
        nonlocal looks
        looks += 1
        found = await look(sha256)
        if looks == 1:
            assert (await push(service.ingests, DATA, "again")).files[0].state == STORED
        return found

    monkeypatch.setattr(store, "blob_size_bytes", then_healed)
    await service.service.recovery.at_boot()
    assert blob.read_bytes() == DATA
    assert (await push(service.ingests, DATA, "later", sha256=digest(DATA))).files[0].deduplicated


async def test_a_blob_that_is_removed_between_the_look_and_the_comparison_is_no_loss(
    database_url: str, start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep elsewhere removes it: its row is DELETING, or gone, and stays so."""
    service = await start_service(database_url=database_url)
    await push(service.ingests, DATA, "first")
    database: Database = service.service.database
    store: LocalBlobStore = service.service.store
    look = store.blob_size_bytes

    async def removed(sha256: str) -> int | None:
        await database.transact(_forget_files)
        assert await database.transact(lambda tx: tx.blobs.mark_deleting(sha256))
        assert await store.remove_blob(sha256, _yes)
        return await look(sha256)

    monkeypatch.setattr(store, "blob_size_bytes", removed)
    await service.service.recovery.at_boot()
    monkeypatch.undo()
    assert await database.read(lambda tx: tx.blobs.live_sizes()) == {}
    await database.transact(lambda tx: tx.blobs.remove_deleting(digest(DATA)))
    assert await database.read(lambda tx: tx.blobs.known([digest(DATA)])) == set()
