"""Records for these tests, and getting them into a database."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from ingest_service.database import Database
from ingest_service.vocabulary.records import Deployment, File, Ingest, NewEvent
from ingest_service.vocabulary.states import DeploymentState, FileRole, FileState, IngestState

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
_numbers = itertools.count(1)


def later(seconds: float) -> datetime:
    """So long after noon."""
    return NOON + timedelta(seconds=seconds)


def new_id() -> str:
    """Another id than ever before in this run."""
    return f"id{next(_numbers)}"


def digest(seed: int) -> str:
    """A digest; which one follows from the seed."""
    return f"sha256:{seed:064x}"


def file(state: FileState = FileState.PENDING, **values: Any) -> File:
    """A file of 100 bytes."""
    fields: dict[str, Any] = {
        "id": new_id(),
        "ingest_id": "",
        "file_name": "model.gguf",
        "role": FileRole.MODEL,
        "state": state,
        "size_bytes": 100,
        "committed_size": 100 if state is FileState.STORED else 0,
        "declared_sha256": None,
        "sha256": digest(7) if state in {FileState.PUBLISHING, FileState.STORED} else None,
        "deduplicated": False,
        "writer_epoch": 1,
        "progress_at": later(0),
    }
    return File(**(fields | values))


def deployment(
    target: str = "default", state: DeploymentState = DeploymentState.PENDING, **values: Any
) -> Deployment:
    """A deployment."""
    return Deployment(**({"id": new_id(), "ingest_id": "", "target": target, "state": state} | values))


def ingest(
    *parts: File | Deployment,
    state: IngestState = IngestState.UPLOADING,
    model: str = "test:latest",
    **values: Any,
) -> Ingest:
    """An ingest of these files (one that is PENDING if none is given) and deployments."""
    ingest_id = values.pop("id", None) or new_id()
    own = [_with_ingest(part, ingest_id) for part in parts]
    files = tuple(part for part in own if isinstance(part, File)) or (file(ingest_id=ingest_id),)
    fields: dict[str, Any] = {
        "id": ingest_id,
        "model": model,
        "canonical_model": model.lower(),
        "state": state,
        "files": files,
        "deployments": tuple(part for part in own if isinstance(part, Deployment)),
        "options": {},
        "request_id": None,
        "request_fingerprint": None,
        "last_sequence": 0,
        "created_at": NOON,
        "updated_at": NOON,
    }
    return Ingest(**(fields | values))


def _with_ingest(part: File | Deployment, ingest_id: str) -> File | Deployment:
    return replace(part, ingest_id=ingest_id)


def forwarded(
    target: str = "default", state: DeploymentState = DeploymentState.PENDING, **values: Any
) -> Ingest:
    """A stored ingest with one deployment, which may be claimed."""
    return ingest(file(FileState.STORED), deployment(target, state, **values), state=IngestState.FORWARDING)


async def insert(database: Database, *ingests: Ingest, events: Sequence[NewEvent] = ()) -> None:
    """Writes them, in order, each in a transaction of its own."""
    for one in ingests:
        await database.transact(lambda tx, one=one: tx.ingests.insert(one, events))  # type: ignore[misc]


async def get(database: Database, one: Ingest) -> Ingest:
    """It as it is now."""
    found = await database.read(lambda tx: tx.ingests.get(one.id))
    assert found is not None
    return found


async def sql(database: Database, statement: str, **values: Any) -> list[Any]:
    """Runs plain SQL in a transaction of its own; answers the rows."""
    async with database.engine.begin() as connection:
        result = await connection.execute(text(statement), values)
        return list(result.all()) if result.returns_rows else []


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Database]:
    """Another handle on a database, as another process would have."""
    database = Database(url, **options)
    try:
        yield database
    finally:
        await database.close()


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Waits until something is so."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
