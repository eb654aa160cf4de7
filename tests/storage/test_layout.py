"""Who may read and write the data directory, and what is refused there."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ingest_service.app import Service
from ingest_service.process import StartError
from ingest_service.storage.layout import UnsafeLayout, make_data_directory, secure_layout
from tests.support.service import settings_for


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_modes_after_a_boot_on_what_was_open(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_data_directory(data)
    (data / "import").chmod(0o770)
    for name in ("uploads", "quarantine", "blobs"):
        (data / name).mkdir()
        (data / name).chmod(0o755)
    service = Service(settings_for(data, ""))
    await service.start()
    names = ("", "blobs", "import", "uploads", "quarantine", "ingest.db", "ingest.db-wal", "store-id")
    modes = {name: mode(data / name) for name in names}
    await service.stop(0.0)
    assert modes == {
        "": 0o755, "blobs": 0o755, "import": 0o770, "uploads": 0o700, "quarantine": 0o700,
        "ingest.db": 0o600, "ingest.db-wal": 0o600, "store-id": 0o600,
    }  # fmt: skip


def test_an_old_database_is_made_private(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    (tmp_path / "ingest.db").touch()
    (tmp_path / "ingest.db").chmod(0o644)
    secure_layout(tmp_path)
    assert mode(tmp_path / "ingest.db") == 0o600
    assert [record.getMessage() for record in caplog.records] == ["made private"]


@pytest.mark.parametrize("name", ["uploads", "blobs", "quarantine", "import", "store-id", "ingest.db"])
def test_a_link_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeLayout, match=f"{name} is a symbolic link"):
        secure_layout(tmp_path)


@pytest.mark.parametrize("name", ["", "uploads", "blobs", "quarantine"])
def test_what_everybody_may_write_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / name).chmod(0o777)
    with pytest.raises(UnsafeLayout, match="chmod o-w"):
        secure_layout(tmp_path)


def test_an_import_folder_that_everybody_may_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "import").mkdir()
    (tmp_path / "import").chmod(0o777)
    secure_layout(tmp_path)
    assert mode(tmp_path / "import") == 0o777
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_boot_refuses_it_before_a_byte_is_written(tmp_path: Path, sqlite_url: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)
    service = Service(settings_for(data, sqlite_url))
    with pytest.raises(StartError, match="every user"):
        await service.start()
    await service.stop(0.0)
    assert not (data / "uploads").exists()
