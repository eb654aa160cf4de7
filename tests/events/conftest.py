"""Histories to watch: an ingest whose events are written by hand, on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingest_service.app import new_id, now
from ingest_service.database import Database, Transaction
from ingest_service.events import Hub, Watches, WatchItem
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.requests import NewFile, NewIngest
from ingest_service.ingests.service import Ingests
from ingest_service.storage import FileExecutor, LocalBlobStore
from ingest_service.vocabulary.records import Event, NewEvent
from ingest_service.vocabulary.states import FileRole
from tests.support.formats import vetting
from tests.support.postgres import PostgresCluster


@dataclass
class History:
    """One ingest that waits for its bytes, so that nothing moves but what the test moves."""

    database: Database
    hub: Hub
    watches: Watches
    ingests: Ingests
    ingest_id: str

    async def tell(self, count: int = 1) -> int:
        """Adds events in one transaction; answers the last number."""

        async def work(tx: Transaction) -> int:
            before = await tx.ingests.lock(self.ingest_id)
            assert before is not None
            news = [NewEvent("notice", {"message": f"{number}"}) for number in range(count)]
            return (await tx.ingests.save(before, before, news, now())).last_sequence

        return await self.database.transact(work)

    async def end(self) -> int:
        """Cancels the ingest, so that it is done; answers the last number."""
        return (await self.ingests.cancel(self.ingest_id)).last_sequence

    def watch(self, after: int = 0) -> contextlib.aclosing[AsyncGenerator[WatchItem, None]]:
        return contextlib.aclosing(self.watches.watch(self.ingest_id, after))

    async def numbers(self, after: int = 0, watches: Watches | None = None) -> list[int]:
        """Watches to the end; answers the events' numbers."""
        found = (watches or self.watches).watch(self.ingest_id, after)
        return [item.sequence async for item in found if isinstance(item, Event)]


@pytest.fixture
def postgres_url(postgres: PostgresCluster) -> Iterator[str]:
    """An empty database on PostgreSQL, for what only that one does; whoever takes it migrates it."""
    name = f"events_{uuid.uuid4().hex}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
async def history(database: Database, tmp_path: Path) -> AsyncIterator[History]:
    """At its end nobody may be left who waits, and no connection in use."""
    executor = FileExecutor(2)
    (tmp_path / "data").mkdir()
    store = LocalBlobStore(tmp_path / "data", executor)
    await store.prepare()
    hub = Hub()
    database.on_event(hub.wake)
    ingests = Ingests(
        database, store, vetting(database, store, executor), Limits(), [], clock=now, new_id=new_id
    )
    request = NewIngest("m", [NewFile("model.gguf", FileRole.MODEL, 1000)])
    ingest = await ingests.create(request)
    watches = Watches(database, hub, max_watches=250)
    yield History(database, hub, watches, ingests, ingest.id)
    executor.close()
    assert watches.active == 0
    assert not hub._waiting
    assert not hub._all


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls and heartbeats within milliseconds."""
    monkeypatch.setattr("ingest_service.events.feed._POLL_SECONDS", 0.02)
    monkeypatch.setattr("ingest_service.events.watch._HEARTBEAT_SECONDS", 0.1)
