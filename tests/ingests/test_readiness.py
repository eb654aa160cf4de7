"""Readiness follows directory and database, both ways, whatever they fail with."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator

import pytest

from ingest_service.ingests.readiness import Readiness
from ingest_service.vocabulary.errors import BackendDown, StorageFailed
from tests.ingests.parts import Gate, Parts, eventually, raising


class Health:
    """What Health was told."""

    def __init__(self) -> None:
        self.told: list[bool] = []

    async def __call__(self, *, serving: bool) -> None:
        self.told.append(serving)


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def readiness(parts_on_sqlite: Parts, health: Health) -> AsyncIterator[Readiness]:
    made = Readiness(parts_on_sqlite.database, parts_on_sqlite.store, health, period_seconds=0.01)
    yield made
    await made.stop()


async def test_ready_is_said_after_the_first_check_and_once(
    readiness: Readiness, health: Health, parts_on_sqlite: Parts
) -> None:
    await readiness.start()
    assert health.told == [True]
    await eventually(lambda: parts_on_sqlite.hooks.calls["probe"] > 4)
    assert health.told == [True]


@pytest.mark.parametrize("place", ["probe", "transact"])
@pytest.mark.parametrize("error", [StorageFailed(), BackendDown(), RuntimeError("a bug"), OSError(5, "EIO")])
async def test_what_fails_makes_it_unready_until_it_works_again(
    readiness: Readiness, health: Health, parts_on_sqlite: Parts, place: str, error: Exception
) -> None:
    await readiness.start()
    parts_on_sqlite.hooks.before[place] = raising(error)
    await eventually(lambda: health.told == [True, False])
    parts_on_sqlite.hooks.before.clear()
    await eventually(lambda: health.told == [True, False, True])


async def test_what_never_answers_makes_it_unready(
    readiness: Readiness, health: Health, parts_on_sqlite: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingest_service.ingests import readiness as module

    monkeypatch.setattr(module, "_CHECK_SECONDS", 0.05)
    parts_on_sqlite.hooks.before["probe"] = Gate()
    async with asyncio.timeout(30):
        await readiness.start()
    assert health.told == []
    parts_on_sqlite.hooks.before.clear()
    await eventually(lambda: health.told == [True])


async def test_the_stop_says_unready(readiness: Readiness, health: Health) -> None:
    await readiness.start()
    await readiness.stop()
    assert health.told == [True, False]


async def test_a_database_that_takes_no_write_makes_it_unready(
    parts_on_sqlite: Parts, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It still answers reads: another program holds its write lock."""
    from ingest_service.ingests import readiness as module

    made = Readiness(parts_on_sqlite.database, parts_on_sqlite.store, health, period_seconds=0.01)
    await made.start()
    path = parts_on_sqlite.database.engine.url.database
    assert path is not None
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        # Short only while nothing can be written: a busy machine is slower than this in a good check, too.
        monkeypatch.setattr(module, "_CHECK_SECONDS", 0.3)
        await eventually(lambda: health.told == [True, False])
        assert await parts_on_sqlite.database.read(lambda tx: tx.store.store_id()) is None
        monkeypatch.undo()
        other.execute("ROLLBACK")
    await eventually(lambda: health.told == [True, False, True])
    await made.stop()
