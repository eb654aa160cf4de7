"""The import folder at boot: what is taken in, what is left and said about, and again at the next boot.

Breaks when: a file is taken in that is not complete, a refused one goes or stops the others, or a boot makes
a second ingest for a file that has one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from model_ingest.v1 import resources_pb2

from ingest_service.ingests.takeover import import_changed
from ingest_service.ingests.taking_in import TakingIn
from tests.conftest import StartService
from tests.imports.folder import boot_is_over, check_taken_in, claims, drop, ingests
from tests.ollama_emulator import OllamaEmulator
from tests.rpc.scenes import Scene
from tests.support.files import MEBIBYTE, gguf

DATA = gguf(MEBIBYTE)
REFUSED = "a file stays in the import folder"


@pytest.mark.extended_when("postgresql")
async def test_files_become_models_of_their_names_on_the_default_targets(
    start_service: StartService, emulator: OllamaEmulator, database_url: str, tmp_path: Path
) -> None:
    second = gguf(MEBIBYTE, seed=2)
    drop(tmp_path / "data", DATA, "llama3-8b.Q4_K_M.gguf")
    drop(tmp_path / "data", second, "other.gguf")
    service = await start_service(f"default={emulator.url}", database_url=database_url)
    await boot_is_over(service)
    made = await ingests(service)
    # Sorted by name, one after the other; newest first here.
    assert [ingest.model for ingest in made] == ["other:latest", "llama3-8b:Q4_K_M"]
    for ingest in made:
        ended = await Scene(service, emulator).ended(ingest.name)
        assert ended.state == resources_pb2.Ingest.STATE_READY
    check_taken_in(tmp_path / "data", DATA, "llama3-8b.Q4_K_M.gguf")
    check_taken_in(tmp_path / "data", second, "other.gguf")


async def test_what_is_not_to_be_taken_in_is_left(
    start_service: StartService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data_dir = tmp_path / "data"
    left = [
        drop(data_dir, DATA, ".hidden.gguf"),
        drop(data_dir, DATA, "a.gguf.part"),
        drop(data_dir, DATA, "a.gguf.TMP"),
        drop(data_dir, DATA, "young.gguf", age_seconds=0),
        drop(data_dir, DATA, "sub/model.gguf"),
    ]
    (data_dir / "import" / "link.gguf").symlink_to(left[0])
    os.mkfifo(data_dir / "import" / "fifo.gguf")
    service = await start_service()
    await boot_is_over(service)
    assert await ingests(service) == []
    assert all(path.read_bytes() == DATA for path in left)
    # None of them is anybody's mistake.
    assert REFUSED not in caplog.messages


async def test_a_refused_file_stays_is_told_of_once_a_boot_and_stops_no_other(
    start_service: StartService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data_dir = tmp_path / "data"
    bad = drop(data_dir, b"<html>", "bad.gguf")
    unnamed = drop(data_dir, DATA, "no model's name.gguf")
    note = drop(data_dir, b"read me", "notes.txt")
    for _ in range(2):
        drop(data_dir, DATA, "good.gguf")
        service = await start_service()
        await boot_is_over(service)
        told = [record.__dict__ for record in caplog.records if record.message == REFUSED]
        assert [record["file"] for record in told] == ["bad.gguf", "no model's name.gguf", "notes.txt"]
        assert {record["levelname"] for record in told} == {"WARNING"}
        assert (told[0]["reason"], told[0]["rule"]) == ("FORMAT_INVALID", "H1")
        assert "HTML" in told[0]["detail"]
        assert told[0]["remedy"]
        check_taken_in(data_dir, DATA, "good.gguf")
        assert bad.exists()
        assert unnamed.exists()
        assert note.exists()
        await service.service.stop(0.0)
        caplog.clear()


async def test_the_setting_turns_it_off(start_service: StartService, tmp_path: Path) -> None:
    path = drop(tmp_path / "data", DATA)
    service = await start_service(import_at_boot="false")
    await boot_is_over(service)
    assert await ingests(service) == []
    assert path.exists()


async def test_a_file_that_failed_after_it_was_accepted_is_tried_again_at_the_next_boot(
    start_service: StartService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = drop(tmp_path / "data", DATA)

    async def changed(*_: object) -> None:
        raise import_changed()

    with monkeypatch.context() as patch:
        patch.setattr(TakingIn, "_check_unchanged", changed)
        for attempts in (1, 2):
            service = await start_service()
            await boot_is_over(service)
            failed = [one.state for one in await ingests(service)]
            assert failed == [resources_pb2.Ingest.STATE_FAILED] * attempts
            assert path.read_bytes() == DATA
            await service.service.stop(0.0)
    service = await start_service()
    await boot_is_over(service)
    assert (await ingests(service))[0].state == resources_pb2.Ingest.STATE_STORED
    check_taken_in(tmp_path / "data", DATA)


async def test_a_file_that_is_stored_and_still_lies_there_goes_at_the_next_boot(
    start_service: StartService, tmp_path: Path
) -> None:
    path = drop(tmp_path / "data", DATA)
    kept = tmp_path / "kept"
    os.link(path, kept)
    service = await start_service()
    await boot_is_over(service)
    await service.service.stop(0.0)
    # As if it could not have been removed.
    os.link(kept, path)
    service = await start_service()
    await boot_is_over(service)
    assert len(await ingests(service)) == 1
    check_taken_in(tmp_path / "data", DATA)


async def test_a_claim_of_an_ingest_that_nobody_knows_gives_the_file_back(
    start_service: StartService, tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    service = await start_service(import_at_boot="false")
    await service.service.stop(0.0)
    aside = data_dir / "uploads" / "0123abcd.source"
    aside.write_bytes(DATA)
    (data_dir / "uploads" / "0123abcd.claim").write_text(
        '{"ingest": "f00", "name": "model.gguf", "inode": 2, "size_bytes": 3, "modified_ns": 4}'
    )
    (data_dir / "uploads" / "0123abce.claim").write_text('{"ingest": "f0')
    service = await start_service(import_at_boot="false")
    await boot_is_over(service)
    assert (data_dir / "import" / "model.gguf").read_bytes() == DATA
    assert claims(data_dir) == []
