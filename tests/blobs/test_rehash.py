"""Reading stored bytes again: what is found, and that an upload of the same bytes meanwhile always wins."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable

import pytest

from ingest_service.blobs import Outcome, Rehasher
from ingest_service.storage import local_scan
from ingest_service.vocabulary.errors import BackendDown, StorageFailed, WriterBusy
from ingest_service.vocabulary.states import BlobState
from tests.blobs.parts import LONG_AGO, SQLITE, Kept, Steered, damage, outcome
from tests.support.files import gguf

pytestmark = pytest.mark.extended_when("postgresql")

DATA = gguf(300_000, seed=1)


async def test_sound_bytes_are_noted_as_verified(kept: Kept, rehasher: Rehasher) -> None:
    sha256 = await kept.put(DATA)
    assert await outcome(rehasher, sha256) is Outcome.SOUND
    row = await kept.row(sha256)
    assert row.state is BlobState.LIVE
    assert row.verified_at is not None
    assert row.verified_at > LONG_AGO


@pytest.mark.parametrize("how", ["flipped", "short", "long", "missing"])
async def test_rot_is_marked_and_logged_once(
    kept: Kept, rehasher: Rehasher, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    sha256 = await kept.put(DATA)
    damage(kept.path(DATA), how)
    assert await outcome(rehasher, sha256) is Outcome.CORRUPT
    row = await kept.row(sha256)
    assert (row.state, row.verified_at) == (BlobState.CORRUPT, LONG_AGO)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.__dict__["sha256"] == sha256
    assert await outcome(rehasher, sha256) is Outcome.CORRUPT


async def test_a_file_that_somebody_put_back_is_live_again(kept: Kept, rehasher: Rehasher) -> None:
    sha256 = await kept.put(DATA)
    damage(kept.path(DATA), "flipped")
    assert await outcome(rehasher, sha256) is Outcome.CORRUPT
    kept.put_file(DATA)
    assert await outcome(rehasher, sha256) is Outcome.SOUND
    assert (await kept.row(sha256)).state is BlobState.LIVE


async def test_a_blob_that_is_being_removed_is_left_alone(kept: Kept, rehasher: Rehasher) -> None:
    sha256 = await kept.put(DATA)
    assert await kept.database.transact(lambda tx: tx.blobs.mark_deleting(sha256))
    damage(kept.path(DATA), "missing")
    assert await outcome(rehasher, sha256) is Outcome.GONE
    assert (await kept.row(sha256)).state is BlobState.DELETING


@SQLITE
async def test_a_disk_that_cannot_be_read_marks_nothing(
    kept: Kept, rehasher: Rehasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = await kept.put(DATA)
    real = local_scan._read_into

    def broken(descriptor: int, buffer: memoryview, offset: int) -> int:
        if offset:
            raise OSError(errno.EIO, "/secret")
        return real(descriptor, buffer, offset)

    monkeypatch.setattr(local_scan, "_read_into", broken)
    with pytest.raises(StorageFailed, match=r"^The stored bytes cannot be read\.$"):
        await outcome(rehasher, sha256)
    row = await kept.row(sha256)
    assert (row.state, row.verified_at) == (BlobState.LIVE, LONG_AGO)


@SQLITE
async def test_a_process_short_of_files_says_to_ask_again(
    kept: Kept, rehasher: Rehasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = await kept.put(DATA)

    def short_of_files(scanner: object, path: object) -> int:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(local_scan.LocalScanner, "_open", short_of_files)
    with pytest.raises(BackendDown):
        await outcome(rehasher, sha256)
    assert (await kept.row(sha256)).state is BlobState.LIVE


def once(work: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[None]]:
    done = False

    async def first_time() -> None:
        nonlocal done
        if not done:
            done = True
            await work()

    return first_time


async def test_an_upload_that_lands_while_the_rotten_file_is_read_wins(
    kept: Kept, rehasher: Rehasher, steered: Steered
) -> None:
    sha256 = await kept.put(DATA)
    damage(kept.path(DATA), "flipped")
    steered.before_piece = once(lambda: kept.put(DATA, verified_at=LONG_AGO.replace(year=2021)))
    assert await outcome(rehasher, sha256) is Outcome.SOUND
    assert (await kept.row(sha256)).state is BlobState.LIVE


async def test_an_upload_whose_row_is_not_written_yet_wins(
    kept: Kept, rehasher: Rehasher, steered: Steered, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is replaced already, the row is still that of the rotten one: nobody says rotten, not for
    a moment."""
    sha256 = await kept.put(DATA)
    damage(kept.path(DATA), "flipped")

    async def replace() -> None:
        kept.put_file(DATA)

    steered.before_piece = once(replace)
    assert await outcome(rehasher, sha256) is Outcome.SOUND
    assert not [record for record in caplog.records if record.levelno == logging.ERROR]


@pytest.mark.parametrize("was", [BlobState.LIVE, BlobState.CORRUPT])
async def test_an_upload_that_lands_after_the_last_look_wins(
    kept: Kept, rehasher: Rehasher, steered: Steered, was: BlobState
) -> None:
    """Between the question whether the file is still the one that was read and the mark."""
    sha256 = await kept.put(DATA)
    damage(kept.path(DATA), "flipped")
    if was is BlobState.CORRUPT:
        assert await outcome(rehasher, sha256) is Outcome.CORRUPT
    steered.after_current = once(lambda: kept.put(DATA, verified_at=LONG_AGO.replace(year=2021)))
    assert await outcome(rehasher, sha256) is Outcome.SOUND
    assert (await kept.row(sha256)).state is BlobState.LIVE


async def test_rot_that_another_process_found_meanwhile_is_not_taken_back(
    kept: Kept, rehasher: Rehasher, steered: Steered
) -> None:
    """It read later than we: what we read before the rot says nothing any more."""
    sha256 = await kept.put(DATA)

    async def rots_behind_us() -> None:
        if len(steered.pieces) == 2:
            with kept.path(DATA).open("r+b") as file:
                file.write(b"rot")
            seen = await kept.row(sha256)
            assert await kept.database.transact(lambda tx: tx.blobs.mark_rotten(seen))

    steered.before_piece = rots_behind_us
    assert await outcome(rehasher, sha256) is Outcome.CORRUPT
    assert (await kept.row(sha256)).state is BlobState.CORRUPT


@SQLITE
async def test_bytes_that_are_replaced_again_and_again_are_given_up(
    kept: Kept, rehasher: Rehasher, steered: Steered
) -> None:
    sha256 = await kept.put(DATA)
    moments = iter(range(2021, 2100))
    steered.before_piece = lambda: _put(kept, next(moments))
    with pytest.raises(WriterBusy):
        await outcome(rehasher, sha256)


async def _put(kept: Kept, year: int) -> None:
    await kept.put(DATA, verified_at=LONG_AGO.replace(year=year))
