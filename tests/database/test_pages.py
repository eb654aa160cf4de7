"""Lists come in pages: every entry once, in order, whatever the limit, and prefixes are taken literally."""

from __future__ import annotations

import pytest

from ingest_service.database import Database
from ingest_service.vocabulary.states import FileState, IngestState
from tests.database.records import deployment, file, ingest, insert

_NAMES = sorted(["a%b:1", "a_b:1", "aXb:1", "a:latest", "b:latest", "ab:latest", "ns/a:latest", "a\\b:1"])


async def _fill(database: Database) -> None:
    for name in _NAMES:
        await insert(database, ingest(file(FileState.STORED), model=name, state=IngestState.STORED))


async def _models(database: Database, prefix: str, limit: int) -> list[str]:
    names: list[str] = []
    after: str | None = None
    while True:
        page, more = await database.read(
            lambda tx, after=after: tx.models.page(prefix=prefix, after=after, limit=limit)  # type: ignore[misc]
        )
        assert len(page) <= limit
        names += [model.canonical_model for model in page]
        if more is None:
            return names
        assert len(page) == limit
        after = more


async def test_models_by_name(database: Database) -> None:
    await _fill(database)
    for limit in (1, 3, len(_NAMES) - 1, len(_NAMES), 100):
        # Names are stored case-folded.
        assert await _models(database, "", limit) == sorted(name.lower() for name in _NAMES)


_FOUND = {
    "a_": ["a_b:1"],
    "a%": ["a%b:1"],
    "a\\": ["a\\b:1"],
    "%": [],
    "_": [],
    "/": [],
    "ns/": ["ns/a:latest"],
    "b:latest": ["b:latest"],
    "b:latestx": [],
}


async def test_a_prefix_is_no_pattern(database: Database) -> None:
    await _fill(database)
    for prefix, found in _FOUND.items():
        for limit in (1, 100):
            assert await _models(database, prefix, limit) == found


@pytest.mark.parametrize("limit", [1, 4, 5])
async def test_ingests_newest_first(database: Database, limit: int) -> None:
    many = [ingest(file(), deployment(f"t{index}")) for index in range(5)]
    await insert(database, *many)
    found: list[str] = []
    before: int | None = None
    while True:
        page, before = await database.read(
            lambda tx, before=before: tx.ingests.page(  # type: ignore[misc]
                canonical_model=None, states=(), before_number=before, limit=limit
            )
        )
        found += [one.id for one in page]
        assert page == [many[4 - len(found) + len(page) - index] for index in range(len(page))]
        if before is None:
            break
        # What comes in between is newer than the page, and not in it.
        if len(found) == limit:
            await insert(database, ingest())
    assert found == [one.id for one in reversed(many)]


async def test_ingests_of_a_model_or_in_some_states(database: Database) -> None:
    many = [
        ingest(model=model, state=state)
        for model in ("a:latest", "B:latest")
        for state in (IngestState.UPLOADING, IngestState.FAILED, IngestState.READY)
    ]
    await insert(database, *many)

    async def found(model: str | None, *states: IngestState) -> list[str]:
        page, more = await database.read(
            lambda tx: tx.ingests.page(canonical_model=model, states=states, before_number=None, limit=9)
        )
        assert more is None
        return [one.id for one in reversed(page)]

    assert await found("b:latest") == [one.id for one in many[3:]]
    assert await found(None, IngestState.FAILED, IngestState.READY) == [
        many[index].id for index in (1, 2, 4, 5)
    ]
    assert await found("a:latest", IngestState.READY) == [many[2].id]
    assert await found("none:latest") == []
