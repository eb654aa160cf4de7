"""What a boot makes of what a crash left, on each database; twice gives the same as once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest_service.ingests.file_moves import FileMoves
from ingest_service.ingests.recovery import Recovery
from ingest_service.storage import LocalBlobStore
from ingest_service.vocabulary.errors import (
    DatabaseFull,
    StorageFailed,
)
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import File, Ingest
from ingest_service.vocabulary.states import FileState, IngestState
from tests.ingests.parts import KIBIBYTE, Parts, clock, model_bytes, new_id, raising
from tests.support.files import digest

pytestmark = pytest.mark.extended_when("postgresql")

DATA = model_bytes(50 * KIBIBYTE)


async def crashed(
    parts: Parts,
    state: FileState,
    *,
    partial: bytes | None = None,
    blob: bytes | None = None,
    committed: int = 0,
) -> Ingest:
    """An ingest as a crash leaves it: the row in `state`, and these files."""
    moves = FileMoves(parts.database, clock)
    ingest = await parts.create(DATA, f"model-{new_id()}")
    _, file = await moves.begin(ingest.id, "model.gguf")
    if committed:
        await moves.checkpoint(file, committed)
    if state in {FileState.VERIFYING, FileState.PUBLISHING}:
        await moves.move(file, FileState.VERIFYING)
    if state is FileState.PUBLISHING:
        await moves.move(file, FileState.PUBLISHING, sha256=digest(DATA), committed_size=len(DATA))
    if partial is not None:
        path_of(parts, file).write_bytes(partial)
    if blob is not None:
        (parts.data_dir / "blobs" / digest(DATA).replace(":", "-")).write_bytes(blob)
    return await parts.ingests.get(ingest.id)


def path_of(parts: Parts, file: File) -> Path:
    return parts.data_dir / "uploads" / f"{file.id}.part"


async def recover(parts: Parts) -> None:
    """Boots twice: a boot may itself be cut off, and the next one begins anew."""
    recovery = Recovery(parts.database, parts.store, parts.vetting, clock=clock)
    await recovery.at_boot()
    ingests, _ = await parts.ingests.page(model="", states=(), before_number=None, limit=100)
    await recovery.at_boot()
    assert (await parts.ingests.page(model="", states=(), before_number=None, limit=100))[0] == ingests


async def check_failed(parts: Parts, ingest: Ingest, reason: Reason) -> None:
    after = await parts.ingests.get(ingest.id)
    assert (after.state, after.files[0].state) == (IngestState.FAILED, FileState.FAILED)
    assert after.failure is not None
    assert after.failure.reason is reason


async def check_kept(parts: Parts, ingest: Ingest, kept: bytes) -> None:
    """It waits for the rest of its bytes, and only what is committed is there of them."""
    after = await parts.ingests.get(ingest.id)
    assert (after.state, after.files[0].state) == (IngestState.UPLOADING, FileState.UPLOADING)
    assert after.files[0].committed_size == len(kept)
    assert parts.kept(after.files[0]) == kept


async def check_stored(parts: Parts, ingest: Ingest) -> None:
    after = await parts.ingests.get(ingest.id)
    assert (after.state, after.files[0].state) == (IngestState.STORED, FileState.STORED)
    assert after.files[0].committed_size == len(DATA)
    assert parts.blob(DATA) == DATA
    assert not path_of(parts, after.files[0]).exists()
    # The blob is on the books: it counts for those that come later.
    assert (await parts.create(DATA, "later", sha256=digest(DATA))).files[0].deduplicated


@pytest.mark.extended_unless("some-VERIFYING", "none-UPLOADING")
@pytest.mark.parametrize("state", [FileState.UPLOADING, FileState.VERIFYING])
@pytest.mark.parametrize("partial", [None, b"", DATA[:1000], DATA], ids=["none", "empty", "some", "all"])
async def test_an_upload_that_a_crash_cut_off_before_its_first_checkpoint_begins_anew(
    parts_on_sqlite: Parts, state: FileState, partial: bytes | None
) -> None:
    ingest = await crashed(parts_on_sqlite, state, partial=partial)
    await recover(parts_on_sqlite)
    await check_kept(parts_on_sqlite, ingest, b"")
    assert (await parts_on_sqlite.push(ingest, DATA)).state is FileState.STORED


@pytest.mark.extended_unless("more-VERIFYING", "some-UPLOADING")
@pytest.mark.parametrize("state", [FileState.UPLOADING, FileState.VERIFYING])
@pytest.mark.parametrize("behind", [b"", b"never synced", bytes(len(DATA))], ids=["nothing", "some", "more"])
async def test_an_upload_that_a_crash_cut_off_is_cut_to_its_last_checkpoint_and_goes_on(
    parts_on_sqlite: Parts, state: FileState, behind: bytes
) -> None:
    ingest = await crashed(parts_on_sqlite, state, partial=DATA[:1000] + behind, committed=1000)
    await recover(parts_on_sqlite)
    await check_kept(parts_on_sqlite, ingest, DATA[:1000])
    assert (await parts_on_sqlite.push(ingest, DATA)).state is FileState.STORED
    assert parts_on_sqlite.blob(DATA) == DATA


@pytest.mark.extended_unless("shorter-VERIFYING", "none-UPLOADING")
@pytest.mark.parametrize("state", [FileState.UPLOADING, FileState.VERIFYING])
@pytest.mark.parametrize("partial", [None, b"", DATA[:999]], ids=["none", "empty", "shorter"])
async def test_an_upload_whose_committed_bytes_are_gone_is_a_failure(
    parts_on_sqlite: Parts, state: FileState, partial: bytes | None
) -> None:
    ingest = await crashed(parts_on_sqlite, state, partial=partial, committed=1000)
    await recover(parts_on_sqlite)
    await check_failed(parts_on_sqlite, ingest, Reason.STORAGE_FAILED)
    assert parts_on_sqlite.partials() == []


@pytest.mark.parametrize(
    ("partial", "blob"),
    [(DATA, None), (None, DATA), (DATA, DATA), (DATA, b"older, rotten bytes"), (b"", DATA)],
    ids=["partial", "blob", "both", "partial and a rotten blob", "blob and a late newcomer's partial"],
)
async def test_a_publication_is_finished_from_what_there_is(
    parts_on_sqlite: Parts, partial: bytes | None, blob: bytes | None
) -> None:
    ingest = await crashed(parts_on_sqlite, FileState.PUBLISHING, partial=partial, blob=blob)
    await recover(parts_on_sqlite)
    await check_stored(parts_on_sqlite, ingest)


@pytest.mark.extended_unless("short", "none")
@pytest.mark.parametrize(
    "partial", [None, b"", DATA[:-1], DATA + b"x"], ids=["none", "empty", "short", "long"]
)
async def test_a_publication_whose_bytes_are_gone_is_a_failure(
    parts_on_sqlite: Parts, partial: bytes | None
) -> None:
    ingest = await crashed(parts_on_sqlite, FileState.PUBLISHING, partial=partial)
    await recover(parts_on_sqlite)
    await check_failed(parts_on_sqlite, ingest, Reason.STORAGE_FAILED)
    assert parts_on_sqlite.partials() == []
    assert parts_on_sqlite.blob(DATA) is None


async def test_all_of_a_crash_is_put_right_at_once(parts: Parts) -> None:
    pending = await parts.create(DATA)
    uploading = await crashed(parts, FileState.UPLOADING, partial=DATA[:20], committed=10)
    publishing = await crashed(parts, FileState.PUBLISHING, partial=DATA)
    verifying = await crashed(parts, FileState.VERIFYING)
    (parts.data_dir / "uploads" / f"{new_id()}.part").write_bytes(b"an orphan")
    await recover(parts)
    assert parts.partials() == [path_of(parts, uploading.files[0]).name]
    await check_kept(parts, uploading, DATA[:10])
    await check_kept(parts, verifying, b"")
    await check_stored(parts, publishing)
    # What had not begun is as it was, and can begin.
    assert (await parts.ingests.get(pending.id)) == pending
    assert (await parts.push(pending, DATA)).state is FileState.STORED


@pytest.mark.parametrize("state", [FileState.UPLOADING, FileState.VERIFYING, FileState.PUBLISHING])
async def test_what_a_live_process_holds_is_left_alone(parts: Parts, state: FileState) -> None:
    ingest = await crashed(parts, state, partial=DATA)
    other = LocalBlobStore(parts.data_dir, parts.executor)
    held = await other.open_partial(ingest.files[0].id)
    assert held is not None
    await recover(parts)
    assert await parts.ingests.get(ingest.id) == ingest
    assert path_of(parts, ingest.files[0]).read_bytes() == DATA
    await held.close()


async def test_an_orphan_that_a_live_process_holds_is_left_alone(parts_on_sqlite: Parts) -> None:
    held = await parts_on_sqlite.local.create_partial(new_id())
    await recover(parts_on_sqlite)
    assert len(parts_on_sqlite.partials()) == 1
    await held.close()
    await recover(parts_on_sqlite)
    assert parts_on_sqlite.partials() == []


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.extended_unless("UPLOADING-link")
@pytest.mark.parametrize("planted", [link, directory])
@pytest.mark.parametrize("state", [FileState.UPLOADING, FileState.PUBLISHING])
async def test_something_else_in_place_of_a_partial_does_not_keep_the_service_from_booting(
    parts_on_sqlite: Parts, planted: Callable[[Path], None], state: FileState
) -> None:
    ingest = await crashed(parts_on_sqlite, state)
    planted(path_of(parts_on_sqlite, ingest.files[0]))
    planted(parts_on_sqlite.data_dir / "uploads" / "model.gguf.part")
    planted(parts_on_sqlite.data_dir / "uploads" / f"{new_id()}.part")
    await recover(parts_on_sqlite)
    await check_failed(parts_on_sqlite, ingest, Reason.STORAGE_FAILED)
    assert Path("/etc/passwd").exists()


async def test_an_orphan_that_cannot_be_removed_does_not_keep_the_service_from_booting(
    parts_on_sqlite: Parts,
) -> None:
    (parts_on_sqlite.data_dir / "uploads" / f"{new_id()}.part").write_bytes(b"an orphan")
    parts_on_sqlite.hooks.before["remove_partial"] = raising(StorageFailed())
    await recover(parts_on_sqlite)


async def test_a_publication_whose_sync_fails_is_not_believed(
    parts_on_sqlite: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    ingest = await crashed(parts_on_sqlite, FileState.PUBLISHING, partial=DATA)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        await Recovery(
            parts_on_sqlite.database, parts_on_sqlite.store, parts_on_sqlite.vetting, clock=clock
        ).at_boot()
    await check_failed(parts_on_sqlite, ingest, Reason.STORAGE_FAILED)
    assert parts_on_sqlite.blob(DATA) is None
    assert parts_on_sqlite.partials() == []


async def test_a_database_whose_disk_is_full_costs_no_committed_byte(parts_on_sqlite: Parts) -> None:
    ingest = await crashed(parts_on_sqlite, FileState.VERIFYING, partial=DATA, committed=1000)
    parts_on_sqlite.hooks.before["transact"] = raising(DatabaseFull(), times=1)
    with pytest.raises(DatabaseFull):
        await recover(parts_on_sqlite)
    await recover(parts_on_sqlite)
    await check_kept(parts_on_sqlite, ingest, DATA[:1000])


async def test_after_a_crash_and_a_boot_the_same_push_ends_well(parts: Parts) -> None:
    begun = await crashed(parts, FileState.UPLOADING, partial=DATA[:1000], committed=500)
    await recover(parts)
    assert (await parts.push(begun, DATA)).state is FileState.STORED
    assert parts.blob(DATA) == DATA
