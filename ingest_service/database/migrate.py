"""Brings the schema up to date with Alembic, one process at a time."""

from __future__ import annotations

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from ingest_service.database.boot_lock import wait_until_unlocked
from ingest_service.database.connect import BEGIN_OPTION, LOCK_SECONDS
from ingest_service.database.engine import Database

_SCRIPTS = Path(__file__).resolve().parent / "migrations"
#: Any number will do, as long as nothing else on the same PostgreSQL database uses it.
_ADVISORY_LOCK = 7_246_301_955
_log = logging.getLogger(__name__)


class SchemaTooNew(Exception):
    """The database was migrated by a newer version of this service."""


def alembic_config() -> Config:
    """Alembic's settings, without a file: there is nothing an operator would set there."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    return config


async def migrate(database: Database) -> tuple[str | None, str]:
    """Upgrades to the newest revision; answers the revision before and after.

    A database that is locked is waited for, `LOCK_SECONDS` at most, with one log line. Raises SchemaTooNew
    if the database is ahead of this program.
    """
    await wait_until_unlocked(database.engine, LOCK_SECONDS)
    async with database.engine.connect() as plain:
        connection = await plain.execution_options(**{BEGIN_OPTION: "IMMEDIATE"})
        async with connection.begin():
            return await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> tuple[str | None, str]:
    # SQLite: BEGIN IMMEDIATE is the lock. PostgreSQL: an advisory one, to the end of the transaction.
    if connection.dialect.name == "postgresql":
        key = {"key": _ADVISORY_LOCK}
        if not connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), key).scalar():
            _log.warning("waiting for the database: another process migrates it")
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), key)
    config = alembic_config()
    scripts = ScriptDirectory.from_config(config)
    head = scripts.get_current_head()
    assert head is not None
    before = MigrationContext.configure(connection).get_current_revision()
    if before is not None and before not in {script.revision for script in scripts.walk_revisions()}:
        raise SchemaTooNew(before)
    if before != head:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, head
