"""Checkpoints: only by the present writer, only of a file that takes bytes, never backwards."""

from __future__ import annotations

import pytest

from ingest_service.database import Database
from ingest_service.vocabulary.records import Ingest
from ingest_service.vocabulary.states import FileState
from tests.database.records import file, get, ingest, insert, later

_OPEN = {FileState.UPLOADING, FileState.VERIFYING}
_UNFINISHED = {*_OPEN, FileState.PUBLISHING}


async def _checkpoint(database: Database, one: Ingest, size: int, epoch: int = 3) -> bool:
    return await database.transact(lambda tx: tx.files.checkpoint(one.files[0].id, epoch, size, later(1)))


async def _committed(database: Database, one: Ingest) -> int:
    return (await get(database, one)).files[0].committed_size


async def test_in_each_state(database: Database) -> None:
    for state in FileState:
        one = ingest(file(state, writer_epoch=3, committed_size=10))
        await insert(database, one)
        assert await _checkpoint(database, one, 20) == (state in _OPEN), state
        assert await _committed(database, one) == (20 if state in _OPEN else 10)


@pytest.mark.parametrize("epoch", [2, 4])
async def test_by_another_writer(database: Database, epoch: int) -> None:
    one = ingest(file(FileState.UPLOADING, writer_epoch=3))
    await insert(database, one)
    assert not await _checkpoint(database, one, 20, epoch)
    assert await _committed(database, one) == 0


async def test_a_smaller_one_changes_nothing_and_is_no_error(database: Database) -> None:
    one = ingest(file(FileState.UPLOADING, writer_epoch=3))
    await insert(database, one)
    for size, committed in ((5, 5), (5, 5), (2**40, 2**40), (7, 2**40)):
        assert await _checkpoint(database, one, size)
        assert await _committed(database, one) == committed


async def test_of_a_file_that_is_not_there(database: Database) -> None:
    assert not await database.transact(lambda tx: tx.files.checkpoint("none", 1, 1, later(1)))


async def test_other_files_are_left_alone(database: Database) -> None:
    mine, other = (ingest(file(FileState.UPLOADING, writer_epoch=3)) for _ in range(2))
    await insert(database, mine, other)
    await _checkpoint(database, mine, 20)
    assert await _committed(database, other) == 0


async def test_a_boot_is_shown_what_is_unfinished(database: Database) -> None:
    many = {state: ingest(file(state)) for state in FileState}
    await insert(database, *many.values())
    found = await database.read(lambda tx: tx.files.unfinished())
    assert {one.id for one in found} == {many[state].files[0].id for state in _UNFINISHED}
