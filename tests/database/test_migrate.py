"""Migrations make exactly the tables of tables.py, once, whole, whoever else migrates at the same moment."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError

from ingest_service.database.migrate import SchemaTooNew, alembic_config, migrate
from ingest_service.database.tables import metadata
from tests.database.records import opened, sql

_ROOT = Path(__file__).resolve().parent.parent.parent


def _head() -> str:
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert head is not None
    return head


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, metadata))


async def test_the_migrations_make_the_tables_of_the_code(empty_url: str) -> None:
    async with opened(empty_url) as database:
        assert await migrate(database) == (None, _head())
        async with database.engine.connect() as connection:
            assert await connection.run_sync(_differences) == []
            names = await connection.run_sync(lambda plain: set(inspect(plain).get_table_names()))
        assert names - {"sqlite_sequence"} == {*metadata.tables, "alembic_version"}


async def test_migrating_again_changes_nothing(empty_url: str) -> None:
    async with opened(empty_url) as database:
        await migrate(database)
        await sql(database, "INSERT INTO store (id, store_id) VALUES (1, 'kept')")
        assert await migrate(database) == (_head(), _head())
        assert await sql(database, "SELECT store_id FROM store") == [("kept",)]


async def test_files_from_before_resume_count_as_if_they_had_moved_just_now(empty_url: str) -> None:
    """Else the first sweep after the upgrade would expire every unfinished upload."""
    async with opened(empty_url) as database:
        config = alembic_config()

        def to_first(connection: Connection) -> None:
            config.attributes["connection"] = connection
            command.upgrade(config, "0001")

        async with database.engine.begin() as connection:
            await connection.run_sync(to_first)
        await sql(
            database,
            "INSERT INTO ingests (number, id, model, canonical_model, state, options, last_sequence,"
            " created_at, updated_at) VALUES (1, 'i', 'm', 'm', 'UPLOADING', '{}', 0, 1, 1)",
        )
        for name in ("a", "b"):
            await sql(
                database,
                "INSERT INTO files (id, ingest_id, position, file_name, role, state, size_bytes,"
                " committed_size, deduplicated, writer_epoch)"
                " VALUES (:name, 'i', 0, :name, 'MODEL', 'UPLOADING', 100, 40, false, 3)",
                name=name,
            )
        before = datetime.now(UTC) - timedelta(minutes=5)
        assert await migrate(database) == ("0001", _head())
        ingest = await database.read(lambda tx: tx.ingests.get("i"))
        assert ingest is not None
        for part in ingest.files:
            assert (part.committed_size, part.writer_epoch) == (40, 3)
            assert before < part.progress_at < before + timedelta(minutes=10)
        async with database.engine.connect() as connection:
            assert await connection.run_sync(_differences) == []


async def test_many_that_migrate_an_empty_database_at_once_all_succeed(empty_url: str) -> None:
    async def one() -> tuple[str | None, str]:
        async with opened(empty_url) as database:
            return await migrate(database)

    answers = await asyncio.gather(*(one() for _ in range(6)))
    assert sorted(before or "" for before, _ in answers) == ["", *[_head()] * 5]


@pytest.mark.extended
async def test_processes_that_migrate_an_empty_database_at_once_all_succeed(
    empty_url: str, tmp_path: Path
) -> None:
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("INGEST_")},
        "INGEST_DATABASE_URL": empty_url,
        "INGEST_DATA_DIR": str(tmp_path / "data"),
    }
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ingest_service", "migrate",
            cwd=_ROOT, env=variables, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(3)
    ]  # fmt: skip
    outputs = [await process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 3
    # Who comes while another migrates says that it waits, and nothing else.
    told = [line for _, errors in outputs for line in errors.decode().splitlines()]
    assert [line for line in told if "waiting for the database" not in line] == []
    said = sorted(output.decode() for output, _ in outputs)
    assert said == [f"schema: {_head()} -> {_head()}\n"] * 2 + [f"schema: none -> {_head()}\n"]


async def test_a_file_that_somebody_else_just_makes_is_waited_for(tmp_path: Path) -> None:
    """SQLite's busy timeout does not hold for the switch to WAL: the second process was refused at once."""
    plain = sqlite3.connect(tmp_path / "new.db", isolation_level=None)
    plain.execute("BEGIN IMMEDIATE")
    async with opened(f"sqlite+aiosqlite:///{tmp_path / 'new.db'}") as database:
        migrating = asyncio.create_task(migrate(database))
        await asyncio.wait({migrating}, timeout=0.5)
        assert not migrating.done()
        plain.execute("COMMIT")
        plain.close()
        assert await migrating == (None, _head())


async def test_a_database_that_is_ahead_of_the_program_is_refused(empty_url: str) -> None:
    async with opened(empty_url) as database:
        await migrate(database)
        await sql(database, "UPDATE alembic_version SET version_num = 'ffff'")
        with pytest.raises(SchemaTooNew, match="ffff"):
            await migrate(database)
        assert await sql(database, "SELECT version_num FROM alembic_version") == [("ffff",)]


async def test_a_migration_that_fails_half_way_leaves_nothing_behind(empty_url: str) -> None:
    async with opened(empty_url) as database:
        # In the way of the last table of the first revision.
        await sql(database, "CREATE TABLE files (x INTEGER)")
        with pytest.raises(DBAPIError):
            await migrate(database)
        async with database.engine.connect() as connection:
            names = await connection.run_sync(lambda plain: inspect(plain).get_table_names())
        assert names == ["files"]
        await sql(database, "DROP TABLE files")
        assert await migrate(database) == (None, _head())
