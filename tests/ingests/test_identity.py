"""Do data directory and database belong together? A boot must not take the wrong one for an empty store."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest_service.ingests import identity
from ingest_service.ingests.identity import WrongStore, check_identity
from ingest_service.storage.identity import network_file_system, read_store_id, write_store_id
from ingest_service.vocabulary.errors import BackendDown
from tests.ingests.parts import Parts, raising

pytestmark = pytest.mark.extended_when("postgresql")


async def check(parts: Parts, directory: Path | None = None, new: str = "new") -> str:
    return await check_identity(parts.database, directory or parts.data_dir, parts.executor, lambda: new)


async def in_database(parts: Parts) -> str | None:
    return await parts.database.read(lambda tx: tx.store.store_id())


async def test_the_first_boot_writes_one_id_into_both_and_later_ones_find_it(parts: Parts) -> None:
    assert await check(parts, new="first") == "first"
    assert read_store_id(parts.data_dir) == await in_database(parts) == "first"
    assert await check(parts, new="second") == "first"


async def test_a_first_boot_that_was_cut_off_before_the_directorys_id_is_finished(parts: Parts) -> None:
    await parts.database.transact(lambda tx: tx.store.set_store_id("first"))
    assert await check(parts, new="second") == "first"
    assert read_store_id(parts.data_dir) == "first"


async def test_a_directory_without_its_id_is_an_unmounted_volume(parts: Parts) -> None:
    await check(parts)
    await parts.create(b"x" * 100)
    (parts.data_dir / "store-id").unlink()
    with pytest.raises(WrongStore, match=r"INGEST_DATA_DIR .* has no store id.*is the data volume mounted\?"):
        await check(parts)
    assert read_store_id(parts.data_dir) is None


async def test_a_directory_whose_database_is_new_is_refused(parts: Parts) -> None:
    write_store_id(parts.data_dir, "first")
    with pytest.raises(WrongStore, match=r"store first, but INGEST_DATABASE_URL is a new, empty database"):
        await check(parts)
    assert await in_database(parts) is None


async def test_two_that_belong_to_different_stores_are_refused(parts: Parts, tmp_path: Path) -> None:
    await check(parts, new="first")
    (tmp_path / "other").mkdir()
    write_store_id(tmp_path / "other", "other")
    with pytest.raises(WrongStore, match=r"store other, but INGEST_DATABASE_URL belongs to store first"):
        await check(parts, tmp_path / "other")


async def test_two_first_boots_at_once_agree(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find nothing; the other one's id is committed first."""

    def new_id() -> str:
        return "mine"

    async def overtaken() -> None:
        parts.hooks.before.clear()
        await parts.database.transact(lambda tx: tx.store.set_store_id("theirs"))

    parts.hooks.before["transact"] = overtaken
    assert await check_identity(parts.database, parts.data_dir, parts.executor, new_id) == "theirs"
    assert read_store_id(parts.data_dir) == "theirs"


async def test_an_id_that_cannot_be_read_is_one_clear_line(parts_on_sqlite: Parts) -> None:
    (parts_on_sqlite.data_dir / "store-id").mkdir()
    with pytest.raises(WrongStore, match=r"INGEST_DATA_DIR .* the store id in it cannot be read"):
        await check(parts_on_sqlite)


async def test_a_database_that_is_away_is_said_as_such(parts_on_sqlite: Parts) -> None:
    parts_on_sqlite.hooks.before["read"] = raising(BackendDown())
    with pytest.raises(BackendDown):
        await check(parts_on_sqlite)
    assert read_store_id(parts_on_sqlite.data_dir) is None


@pytest.mark.parametrize(
    ("mounted", "setting"),
    [("data", "INGEST_DATA_DIR"), ("data/blobs", "INGEST_DATA_DIR"), ("data/uploads", "INGEST_DATA_DIR"),
     ("", "INGEST_DATA_DIR"), ("test.db", "INGEST_DATABASE_URL")],
)  # fmt: skip
async def test_a_network_file_system_anywhere_below_is_refused(
    parts_on_sqlite: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounted: str, setting: str
) -> None:
    mounts = tmp_path / "mountinfo"
    point = tmp_path / mounted
    mounts.write_text(f"1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {point} rw - nfs4 server:/export rw\n")
    monkeypatch.setattr(identity, "network_file_system", lambda path: network_file_system(path, mounts))
    with pytest.raises(WrongStore, match=rf"^{setting}: .* network file system \(nfs4\).* use a local one"):
        await check(parts_on_sqlite)
    assert await in_database(parts_on_sqlite) is None
