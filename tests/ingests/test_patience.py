"""Patience: what must be written in the end is tried until it is, or the service stops."""

from __future__ import annotations

import asyncio

import pytest

from ingest_service.ingests import patience as module
from ingest_service.ingests.patience import Patience
from ingest_service.vocabulary.errors import BackendDown, DatabaseFull, StorageFailed, StorageFull


class Work:
    """Fails with these errors first."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(module, "_LONGEST_PAUSE_SECONDS", 0.004)


async def test_what_works_is_done_once() -> None:
    work = Work()
    assert await Patience().until_done(work) == "done"
    assert work.calls == 1


async def test_a_database_that_is_away_or_full_is_asked_again() -> None:
    work = Work(BackendDown(), DatabaseFull(), BackendDown(), BackendDown(), BackendDown())
    assert await Patience().until_done(work) == "done"
    assert work.calls == 6


@pytest.mark.parametrize("error", [StorageFailed(), StorageFull(), RuntimeError("a bug")])
async def test_other_errors_are_no_matter_of_patience(error: Exception) -> None:
    work = Work(error)
    with pytest.raises(type(error)):
        await Patience().until_done(work)
    assert work.calls == 1


async def test_the_end_of_patience_is_one_last_try_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_SECONDS", 3600)
    monkeypatch.setattr(module, "_LONGEST_PAUSE_SECONDS", 3600)
    for errors, last in (([BackendDown()], "done"), ([BackendDown(), BackendDown()], None)):
        patience, work = Patience(), Work(*errors)
        waiting = asyncio.create_task(patience.until_done(work))
        while not work.calls:
            await asyncio.sleep(0)
        patience.end()
        async with asyncio.timeout(30):
            answer = (await asyncio.gather(waiting, return_exceptions=True))[0]
        assert answer == last or isinstance(answer, BackendDown)
        assert (answer == "done") == (last == "done")
        assert work.calls == 2


async def test_after_the_end_there_is_one_try() -> None:
    patience = Patience()
    patience.end()
    work = Work(BackendDown(), BackendDown())
    with pytest.raises(BackendDown):
        await patience.until_done(work)
    assert work.calls == 1
