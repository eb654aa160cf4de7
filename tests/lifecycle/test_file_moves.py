"""Every state of a file and of its ingest against every move of an upload, through a real database.

What a move may do is written down here as one table; everything else has to be refused, and to leave
everything as it was.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import product

import pytest

from ingest_service.database import Database
from ingest_service.ingests.file_moves import FileMoves
from ingest_service.vocabulary.errors import (
    FileNotFound,
    IngestNotFound,
    UploadClosed,
    UploadExpired,
    WriterSuperseded,
)
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Deployment, Failure, File, Ingest
from ingest_service.vocabulary.states import DeploymentState, FileState, IngestState
from tests.database.records import deployment, digest, file, get, ingest, insert, later
from tests.support.formats import ACCEPTED

pytestmark = pytest.mark.extended_when("postgresql")

EPOCH = 3
_FAILURE = Failure(Reason.DIGEST_MISMATCH, "other bytes")
_F, _D = FileState, DeploymentState
_COMPLETE = {_F.VERIFYING, _F.PUBLISHING, _F.STORED}
_RECEIVING = {_F.UPLOADING, _F.VERIFYING}

#: Every state of a file with every state of an ingest that it may be met in: the one that follows from it,
#: those of a cancelled and an expired one, and that of one which failed with another of its files.
CASES = [
    (of_file, of_ingest)
    for of_file, of_ingest in product(FileState, IngestState)
    if (of_file is _F.STORED)
    == (of_ingest in {IngestState.STORED, IngestState.FORWARDING, IngestState.READY})
    or of_ingest in {IngestState.CANCELLING, IngestState.CANCELLED, IngestState.EXPIRED, IngestState.FAILED}
]
Call = Callable[[FileMoves, File], Awaitable[object]]


@dataclass(frozen=True)
class Outcome:
    """What a call did: what it raised, where the file is now, and whether anything was told."""

    raised: type[Exception] | None
    state: FileState
    told: bool


def _beside(of_file: FileState, of_ingest: IngestState) -> list[File | Deployment]:
    """The other parts of an ingest that make its state what it is."""
    target = {
        IngestState.STORED: _D.SUPERSEDED,
        IngestState.FORWARDING: _D.PUSHING,
        IngestState.CANCELLING: _D.PUSHING,
        IngestState.READY: _D.READY,
        IngestState.UPLOADING: _D.PENDING,
    }.get(of_ingest, _D.CANCELLED)
    if of_ingest is IngestState.FAILED and of_file is not _F.FAILED:
        return [file(_F.FAILED, file_name="other"), deployment(state=target)]
    return [deployment(state=target)]


def _but_for_its_writer(one: Ingest) -> Ingest:
    """Without what changes when another writer takes the file, which is no event."""
    files = tuple(replace(part, writer_epoch=0, progress_at=later(0)) for part in one.files)
    return replace(one, updated_at=later(0), files=files)


async def _outcomes(
    database: Database, call: Call, epoch: int = EPOCH
) -> dict[tuple[FileState, IngestState], Outcome]:
    """Makes the call in each case, with that epoch in hand."""
    moves = FileMoves(database, lambda: later(1))
    outcomes = {}
    for of_file, of_ingest in CASES:
        part = file(of_file, writer_epoch=EPOCH, sha256=digest(7))
        one = ingest(part, *_beside(of_file, of_ingest), state=of_ingest)
        await insert(database, one)
        raised: type[Exception] | None = None
        try:
            await call(moves, replace(one.files[0], writer_epoch=epoch))
        except Exception as error:  # noqa: BLE001 (compared below)
            raised = type(error)
        now = await get(database, one)
        told = now.last_sequence > 0
        assert told or _but_for_its_writer(now) == _but_for_its_writer(one), (
            "nothing told, yet something changed"
        )
        if raised is not None:
            assert not told
        outcomes[of_file, of_ingest] = Outcome(raised, now.files[0].state, told)
    return outcomes


def _begin_outcome(of_file: FileState, of_ingest: IngestState) -> Outcome:
    if of_file in _COMPLETE:
        return Outcome(None, of_file, told=False)
    if of_ingest is IngestState.EXPIRED:
        return Outcome(UploadExpired, of_file, told=False)
    is_done = of_ingest in {IngestState.CANCELLED, IngestState.FAILED}
    if of_file is _F.FAILED or is_done:
        return Outcome(UploadClosed, of_file, told=False)
    # A second writer takes the file over: nothing that a watcher would have to hear.
    return Outcome(None, _F.UPLOADING, told=of_file is _F.PENDING)


async def test_begin(database: Database) -> None:
    outcomes = await _outcomes(database, lambda moves, part: moves.begin(part.ingest_id, part.file_name))
    assert outcomes == {case: _begin_outcome(*case) for case in CASES}


async def test_begin_takes_a_new_epoch_whenever_it_takes_the_file_and_never_else(database: Database) -> None:
    moves = FileMoves(database, lambda: later(1))
    for of_file in (_F.PENDING, _F.UPLOADING, *_COMPLETE):
        one = ingest(file(of_file, writer_epoch=EPOCH, sha256=digest(7)))
        await insert(database, one)
        _, begun = await moves.begin(one.id, "model.gguf")
        taken = of_file not in _COMPLETE
        assert begun.writer_epoch == EPOCH + taken
        assert begun.progress_at == later(1 if taken else 0)
        assert begun == (await get(database, one)).files[0]


async def test_the_writers_of_files_in_one_look(database: Database) -> None:
    one, other = ingest(file(_F.UPLOADING, writer_epoch=EPOCH)), ingest(file(_F.FAILED, writer_epoch=9))
    await insert(database, one)
    await insert(database, other)
    ids = [one.files[0].id, other.files[0].id, "none"]
    assert await FileMoves(database, lambda: later(1)).writers(ids) == {
        one.files[0].id: (EPOCH, _F.UPLOADING),
        other.files[0].id: (9, _F.FAILED),
    }


async def test_back_to_uploading(database: Database) -> None:
    outcomes = await _outcomes(database, lambda moves, part: moves.back_to_uploading(part))
    for (of_file, _), outcome in outcomes.items():
        moved = of_file is _F.VERIFYING
        assert outcome == Outcome(None, _F.UPLOADING if moved else of_file, told=moved)


async def test_verify(database: Database) -> None:
    outcomes = await _outcomes(database, lambda moves, part: moves.move(part, _F.VERIFYING))
    for (of_file, _), outcome in outcomes.items():
        told = of_file is _F.UPLOADING
        expected = Outcome(None, _F.VERIFYING, told) if of_file in _RECEIVING else None
        assert outcome == (expected or Outcome(UploadClosed, of_file, told=False))


async def test_publish(database: Database) -> None:
    outcomes = await _outcomes(
        database, lambda moves, part: moves.move(part, _F.PUBLISHING, committed_size=part.size_bytes)
    )
    for (of_file, _), outcome in outcomes.items():
        expected = Outcome(None, _F.PUBLISHING, told=True) if of_file in _RECEIVING else None
        assert outcome == (expected or Outcome(UploadClosed, of_file, told=False))


async def test_stored(database: Database) -> None:
    outcomes = await _outcomes(database, lambda moves, part: moves.stored(part, ACCEPTED))
    for (of_file, _), outcome in outcomes.items():
        moved = of_file is _F.PUBLISHING
        assert outcome == Outcome(None, _F.STORED if moved else of_file, told=moved)


async def test_fail(database: Database) -> None:
    outcomes = await _outcomes(database, lambda moves, part: moves.fail(part, _FAILURE))
    for (of_file, _), outcome in outcomes.items():
        moved = of_file in _RECEIVING | {_F.PUBLISHING}
        assert outcome == Outcome(None, _F.FAILED if moved else of_file, told=moved)


async def test_checkpoint(database: Database) -> None:
    outcomes = await _outcomes(database, lambda moves, part: moves.checkpoint(part, part.committed_size))
    for (of_file, _), outcome in outcomes.items():
        expected = None if of_file in _RECEIVING else UploadClosed
        assert outcome == Outcome(expected, of_file, told=False)


async def test_a_writer_that_was_superseded_moves_nothing(database: Database) -> None:
    calls: dict[str, Call] = {
        "checkpoint": lambda moves, part: moves.checkpoint(part, 1),
        "verify": lambda moves, part: moves.move(part, _F.VERIFYING),
        "publish": lambda moves, part: moves.move(part, _F.PUBLISHING),
        "fail": lambda moves, part: moves.fail(part, _FAILURE),
        "back": lambda moves, part: moves.back_to_uploading(part),
    }
    for name, call in calls.items():
        for (of_file, _), outcome in (await _outcomes(database, call, EPOCH - 1)).items():
            assert (outcome.state, outcome.told) == (of_file, False)
            if name in {"fail", "back"}:
                assert outcome.raised is None
            elif of_file in _RECEIVING:
                assert outcome.raised is WriterSuperseded
            else:
                assert outcome.raised is UploadClosed


async def test_what_is_not_there(database: Database) -> None:
    moves = FileMoves(database, lambda: later(1))
    missing = file(ingest_id="none")
    one: Ingest = ingest()
    await insert(database, one)
    calls: dict[type[Exception], list[Awaitable[object]]] = {
        IngestNotFound: [
            moves.begin("none", "model.gguf"),
            moves.checkpoint(missing, 1),
            moves.move(missing, _F.VERIFYING),
            moves.stored(missing, ACCEPTED),
            moves.read(missing),
        ],
        FileNotFound: [moves.begin(one.id, "other.gguf")],
    }
    for expected, awaitables in calls.items():
        for awaitable in awaitables:
            try:
                await awaitable
            except expected:
                continue
            raise AssertionError(f"{awaitable} did not raise {expected}")
    assert await moves.fail(missing, _FAILURE) is False
