"""Hints of other processes' commits: told once per ingest and commit, and for ever."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

from ingest_service.database import Database, Hints, Transaction, hints_of
from ingest_service.database.connect import create_engine, listening_arguments
from ingest_service.database.migrate import migrate
from ingest_service.vocabulary.records import Ingest, NewEvent
from ingest_service.vocabulary.states import FileState
from tests.database.records import NOON, file, ingest, insert, later
from tests.support.postgres import PostgresCluster
from tests.support.proxy import Plan, TcpProxy

BOUND_SECONDS = 60.0
NEWS = [NewEvent("notice", {"message": "n"})]


class Ear:
    """What one process is told."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.heard: list[str | None] = []
        self.hints: Hints = hints_of(database, self.heard.append)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND_SECONDS):
            while not condition():
                await asyncio.sleep(0.01)

    async def hears(self, ingest_id: str | None, times: int = 1) -> None:
        await self.until(lambda: self.heard.count(ingest_id) >= times)


@contextlib.asynccontextmanager
async def listening(url: str) -> AsyncIterator[Ear]:
    """Another process, as far as the database can tell; it is connected."""
    ear = Ear(Database(url))
    ear.hints.start()
    try:
        await ear.hears(None)
        assert ear.hints.is_connected
        yield ear
    finally:
        await ear.hints.stop()
        await ear.database.close()


async def tell(database: Database, *told: Ingest, events: int = 1) -> None:
    """Gives each of them events, in one transaction."""

    async def work(tx: Transaction) -> None:
        for one in told:
            before = await tx.ingests.lock(one.id)
            assert before is not None
            await tx.ingests.save(before, before, NEWS * events, NOON)

    await database.transact(work)


@pytest.fixture
async def here(postgres: PostgresCluster) -> AsyncIterator[Database]:
    """On PostgreSQL; its database can be reached by `url_of`."""
    name = f"hints_{uuid.uuid4().hex}"
    database = Database(postgres.create_database(name))
    await migrate(database)
    yield database
    await database.close()
    postgres.drop_database(name)


def url_of(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


def listeners(postgres: PostgresCluster, database: Database) -> int:
    name = database.engine.url.database
    return int(
        postgres.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'model-ingest-listen'"
            f" AND datname = '{name}'"
        )
    )


async def test_a_commit_of_another_process_is_told_whoever_it_touched(database: Database) -> None:
    one, two, other = ingest(), ingest(), ingest()
    async with listening(url_of(database)) as ear:
        for each in (one, two, other):
            await insert(database, each)
        await tell(database, one)
        await ear.hears(one.id)
        ear.heard.clear()
        await tell(database, one, two, events=3)
        await ear.hears(one.id)
        await ear.hears(two.id)
        assert other.id not in ear.heard
        assert None not in ear.heard


async def test_postgresql_tells_once_per_ingest_and_commit(here: Database) -> None:
    one, two = ingest(), ingest()
    await insert(here, one)
    await insert(here, two)
    async with listening(url_of(here)) as ear:
        ear.heard.clear()
        await tell(here, one, two, events=50)
        await tell(here, one)
        await ear.hears(one.id, 2)
        assert sorted(told for told in ear.heard if told) == sorted([one.id, one.id, two.id])


async def test_what_is_rolled_back_is_not_told(database: Database) -> None:
    one, two = ingest(), ingest()
    await insert(database, one)
    await insert(database, two)

    async def work(tx: Transaction) -> None:
        before = await tx.ingests.lock(one.id)
        assert before is not None
        await tx.ingests.save(before, before, NEWS, NOON)
        raise LookupError

    async with listening(url_of(database)) as ear:
        ear.heard.clear()
        with pytest.raises(LookupError):
            await database.transact(work)
        await tell(database, two)
        await ear.hears(two.id)
        assert one.id not in ear.heard


async def test_the_echo_of_our_own_commits_is_not_told(here: Database) -> None:
    one, two = ingest(), ingest()
    await insert(here, one)
    await insert(here, two)
    at_once: list[str] = []
    async with listening(url_of(here)) as ear:
        ear.database.on_event(at_once.append)
        ear.heard.clear()
        await tell(ear.database, one)
        await tell(here, two)
        await ear.hears(two.id)
        assert ear.heard == [two.id]
        assert at_once == [one.id]


async def test_a_takeover_is_told_although_it_is_no_event(here: Database) -> None:
    one = ingest()
    await insert(here, one)

    async def take(tx: Transaction) -> None:
        before = await tx.ingests.lock(one.id)
        assert before is not None
        files = (replace(before.files[0], writer_epoch=before.files[0].writer_epoch + 1),)
        await tx.ingests.save(before, replace(before, files=files), [], later(1))

    async with listening(url_of(here)) as ear:
        ear.heard.clear()
        await here.transact(take)
        await ear.hears(one.id)


async def _checkpoint(of: Ingest, size: int, tx: Transaction) -> bool:
    row = of.files[0]
    return await tx.files.checkpoint(row.id, row.writer_epoch, size, later(size))


async def test_progress_is_not_told(database: Database) -> None:
    one, two = ingest(file(FileState.UPLOADING)), ingest()
    await insert(database, one)
    await insert(database, two)
    async with listening(url_of(database)) as ear:
        ear.heard.clear()
        for size in range(1, 20):
            assert await database.transact(partial(_checkpoint, one, size))
        await tell(database, two)
        await ear.hears(two.id)
        assert one.id not in ear.heard


async def test_a_listener_that_the_server_cuts_off_comes_back(
    postgres: PostgresCluster, here: Database
) -> None:
    one = ingest()
    await insert(here, one)
    async with listening(url_of(here)) as ear:
        for times in range(2, 5):
            postgres.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname ="
                f" '{here.engine.url.database}' AND application_name = 'model-ingest-listen'"
            )
            # None again: what came while nobody listened is found by reading.
            await ear.hears(None, times)
            before = ear.heard.count(one.id)
            await tell(here, one)
            await ear.hears(one.id, before + 1)
        assert listeners(postgres, here) == 1


async def test_a_listener_outlives_a_restart_of_the_server(postgres: PostgresCluster, here: Database) -> None:
    one = ingest()
    await insert(here, one)
    async with listening(url_of(here)) as ear:
        await asyncio.to_thread(postgres.stop, "immediate")
        await ear.until(lambda: not ear.hints.is_connected)
        await asyncio.to_thread(postgres.start)
        await ear.hears(None, 2)
        await tell(here, one)
        await ear.hears(one.id)
        assert listeners(postgres, here) == 1


async def test_a_listener_starts_before_its_server(postgres: PostgresCluster, here: Database) -> None:
    one = ingest()
    await insert(here, one)
    await asyncio.to_thread(postgres.stop)
    ear = Ear(Database(url_of(here)))
    ear.hints.start()
    try:
        await asyncio.sleep(0.5)
        assert not ear.hints.is_connected
    finally:
        await asyncio.to_thread(postgres.start)
    await ear.hears(None)
    await tell(here, one)
    await ear.hears(one.id)
    await ear.hints.stop()
    await ear.database.close()


async def test_a_connection_that_is_silently_dead_is_replaced(
    here: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest_service.database.notify._PING_SECONDS", 0.3)
    monkeypatch.setattr("ingest_service.database.notify._PING_TIMEOUT_SECONDS", 1.0)
    plans: list[Plan] = []

    def plan(number: int) -> Plan:
        plans.append(Plan())
        return plans[-1]

    one = ingest()
    await insert(here, one)
    url = here.engine.url
    async with TcpProxy(f"{url.host}:{url.port}", plan) as proxy:
        host, _, port = proxy.address.rpartition(":")
        through = url.set(host=host, port=int(port)).render_as_string(hide_password=False)
        async with listening(through) as ear:
            # Neither side hears of it: no FIN, no RST, the other half goes on.
            plans[0].down.stall_after_bytes = 0
            await ear.hears(None, 2)
            assert proxy.connections >= 2
            await tell(here, one)
            await ear.hears(one.id)


async def test_stopping_leaves_neither_connection_nor_thread(
    database: Database, request: pytest.FixtureRequest
) -> None:
    async with listening(url_of(database)):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "sqlite-tail"]
    if database.engine.dialect.name == "postgresql":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        async with asyncio.timeout(BOUND_SECONDS):
            while listeners(cluster, database):
                await asyncio.sleep(0.01)


async def test_hints_that_never_began_are_stopped(database: Database) -> None:
    await hints_of(database, lambda _: None).stop()


async def test_removed_rows_of_a_sqlite_file_make_everybody_look(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    await migrate(database)
    one, two = ingest(), ingest()
    await insert(database, one)
    await insert(database, two)
    await tell(database, one, events=10)
    async with listening(sqlite_url) as ear:
        ear.heard.clear()
        async with database.engine.begin() as connection:
            await connection.execute(text("DELETE FROM events"))
        await ear.hears(None)
        # Their numbers are given again, and still heard of.
        await tell(database, two)
        await ear.hears(two.id)
    await database.close()


async def test_a_sqlite_file_that_cannot_be_looked_at_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest_service.database.tail._BACKOFF_SECONDS", 0.02)
    url = f"sqlite+aiosqlite:///{tmp_path / 'late' / 'x.db'}"
    ear = Ear(Database(url))
    ear.hints.start()
    await asyncio.sleep(0.2)
    assert not ear.hints.is_connected
    (tmp_path / "late").mkdir()
    await migrate(ear.database)
    await ear.hears(None)
    await ear.hints.stop()
    await ear.database.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+asyncpg://u:p@h:5/n", {"user": "u", "password": "p", "host": "h", "port": 5}),
        ("postgresql+asyncpg://u@h/n?ssl=require", {"ssl": "require", "host": "h"}),
        ("postgresql+asyncpg:///n?host=/run/pg", {"host": "/run/pg"}),
        ("postgresql+asyncpg://u@/n?host=a:1&host=b:2", {"host": ["a", "b"], "port": [1, 2]}),
        ("postgresql+asyncpg://u@h/n?prepared_statement_cache_size=0", {"host": "h"}),
    ],
)
async def test_the_listener_connects_where_the_pool_does(url: str, expected: dict[str, object]) -> None:
    engine = create_engine(url, 1)
    found = listening_arguments(engine)
    assert found["database"] == "n"
    assert {name: found.get(name) for name in expected} == expected
    assert not [name for name in found if name.startswith("prepared_statement")]
    await engine.dispose()
