"""The database goes away and comes back: calls say BACKEND_DOWN, then work again without a restart."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, text

from ingest_service.database import Database, Transaction, connect
from ingest_service.database.migrate import migrate
from ingest_service.vocabulary.errors import BackendDown, DatabaseDown, DatabaseFull
from tests.database.records import ingest, insert, opened, sql, until
from tests.support.postgres import PostgresCluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    """A PostgreSQL of our own, to be stopped and started."""
    with tempfile.TemporaryDirectory(prefix="model-ingest-postgres-") as directory:
        own = PostgresCluster(Path(directory))
        own.start()
        own.create_database("up")
        yield own
        own.stop("immediate")
        own.close()


@pytest.mark.extended
@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_postgresql_stopped_and_started_again(cluster: PostgresCluster, mode: str) -> None:
    async with opened(cluster.url("up")) as database:
        await migrate(database)
        one, two = ingest(), ingest()
        await insert(database, one)
        await asyncio.to_thread(cluster.stop, mode)
        for _ in range(2):
            with pytest.raises(BackendDown):
                await database.read(lambda tx: tx.ingests.get(one.id))
            with pytest.raises(BackendDown):
                await insert(database, two)
        await asyncio.to_thread(cluster.start)
        assert await database.read(lambda tx: tx.ingests.get(one.id)) is not None
        await insert(database, two)
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_postgresql_restarted_unseen_between_two_calls(cluster: PostgresCluster) -> None:
    """The pooled connections are dead by then, and nobody has noticed: no call may pay for it."""
    async with opened(cluster.url("up"), pool_size=2) as database:
        await migrate(database)
        await asyncio.gather(*(database.read(lambda tx: tx.models.count()) for _ in range(2)))
        await asyncio.to_thread(cluster.stop, "immediate")
        await asyncio.to_thread(cluster.start)
        for _ in range(3):
            await insert(database, ingest())


async def test_postgresql_stopped_in_the_middle_of_transactions(cluster: PostgresCluster) -> None:
    async with opened(cluster.url("up"), pool_size=4) as database:
        await migrate(database)
        many = [ingest() for _ in range(4)]
        inside = asyncio.Barrier(len(many) + 1)
        stopped = asyncio.Event()

        def work_on(index: int):
            async def work(tx: Transaction) -> None:
                await tx.ingests.insert(many[index], ())
                await inside.wait()
                await stopped.wait()
                await tx.ingests.get(many[index].id)

            return work

        running = [asyncio.create_task(database.transact(work_on(index))) for index in range(len(many))]
        await inside.wait()
        await asyncio.to_thread(cluster.stop, "immediate")
        stopped.set()
        outcomes = await asyncio.gather(*running, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [DatabaseDown] * len(many)
        await asyncio.to_thread(cluster.start)
        for one in many:
            assert await database.read(lambda tx, one=one: tx.ingests.get(one.id)) is None  # type: ignore[misc]
            await insert(database, one)
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert await sql(
            database, "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
        ) == [(0,)]


async def test_a_database_that_is_not_there(postgres: PostgresCluster, tmp_path: Path) -> None:
    threads = threading.active_count()
    for url in (postgres.url("nowhere"), f"sqlite+aiosqlite:///{tmp_path / 'missing' / 'x.db'}"):
        async with opened(url) as database:
            with pytest.raises(BackendDown):
                await database.read(lambda tx: tx.models.count())
    # The thread of a SQLite connection that never came about ends by itself, and needs the loop for it.
    await until(lambda: threading.active_count() <= threads)


async def test_a_row_that_another_holds_for_too_long_on_postgresql(postgres: PostgresCluster) -> None:
    url = postgres.create_database("held", "migrated")
    one = ingest()
    async with opened(url) as holder, opened(url) as waiter:
        await insert(holder, one)
        held, release = asyncio.Event(), asyncio.Event()

        async def hold(tx: Transaction) -> None:
            await tx.ingests.lock(one.id)
            held.set()
            await release.wait()

        async def wait(tx: Transaction) -> None:
            await tx.store._statements.run(text("SET LOCAL lock_timeout = '200ms'"))
            await tx.ingests.lock(one.id)

        holding = asyncio.create_task(holder.transact(hold))
        await held.wait()
        with pytest.raises(BackendDown):
            await waiter.transact(wait)
        release.set()
        await holding
        await waiter.transact(wait)
    postgres.drop_database("held")


_HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


async def test_a_sqlite_file_that_another_process_locks_for_too_long(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "LOCK_SECONDS", 0.3)
    async with opened(sqlite_url) as database:
        await migrate(database)
        one = ingest()
        await insert(database, one)
        path = sqlite_url.removeprefix("sqlite+aiosqlite:///")
        with subprocess.Popen(
            [sys.executable, "-c", _HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout is not None
            assert await asyncio.to_thread(holder.stdout.readline) == b"held\n"
            with pytest.raises(BackendDown):
                await insert(database, ingest())
            # A writer holds up no reader.
            assert await database.read(lambda tx: tx.ingests.get(one.id)) is not None
            holder.communicate()
        await insert(database, ingest())


async def test_a_sqlite_database_without_room(sqlite_url: str) -> None:
    async with opened(sqlite_url) as database:
        await migrate(database)
    async with opened(sqlite_url) as database:
        limit: int | None = None

        def limit_pages(connection: Connection) -> None:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one() if limit is None else limit
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

        event.listen(database.engine.sync_engine, "begin", limit_pages)
        large = ingest(options={"text": "x" * 200_000})
        with pytest.raises(DatabaseFull):
            await insert(database, large)
        assert await database.read(lambda tx: tx.ingests.get(large.id)) is None
        limit = 1_000_000
        await insert(database, large)


async def test_closing_while_the_database_is_away_ends(cluster: PostgresCluster) -> None:
    database = Database(cluster.url("up"))
    await database.read(lambda tx: tx.models.count())
    await asyncio.to_thread(cluster.stop, "immediate")
    await database.close()
    await asyncio.to_thread(cluster.start)


async def test_an_outage_is_two_lines(cluster: PostgresCluster, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with opened(cluster.url("up")) as database:
        await migrate(database)
        await asyncio.to_thread(cluster.stop, "immediate")
        for _ in range(20):
            for call in (database.read, database.transact):
                with pytest.raises(BackendDown):
                    await call(lambda tx: tx.models.count())
        await asyncio.to_thread(cluster.start)
        await database.read(lambda tx: tx.models.count())
        await database.transact(lambda tx: tx.models.count())
    lines = [record for record in caplog.records if record.name.startswith("ingest_service")]
    assert [line.getMessage() for line in lines] == [
        "the database cannot be used",
        "the database can be used again",
    ]
    assert vars(lines[1])["failures"] == 40
