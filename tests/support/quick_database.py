"""Databases of services in this process, without what only a crash of the machine or a second program needs.

The tests open some thousand databases. Each engine would compile the same statements anew, and SQLite would
sync its log at each commit; no power is cut while they run (tests/faults cuts it, in processes of their own).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, MutableMapping
from typing import Any

from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from ingest_service.database import engine as database_engine
from ingest_service.database import migrate
from ingest_service.database.connect import create_engine


class _SharedStatements(MutableMapping[Any, Any]):
    """Compiled statements by the dialect's name: SQLAlchemy's key has the dialect itself, one per engine."""

    def __init__(self) -> None:
        self._compiled: dict[Any, Any] = {}

    @staticmethod
    def _shared(key: Any) -> Any:
        return (key[0].name, *key[1:])

    def __getitem__(self, key: Any) -> Any:
        return self._compiled[self._shared(key)]

    def __setitem__(self, key: Any, compiled: Any) -> None:
        self._compiled[self._shared(key)] = compiled

    def __delitem__(self, key: Any) -> None:
        del self._compiled[self._shared(key)]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._compiled)

    def __len__(self) -> int:
        return len(self._compiled)


_STATEMENTS = _SharedStatements()


def install() -> None:
    """Once per process. A test of what an engine is really like patches `create_engine` back."""

    def create(url: str, pool_size: int) -> AsyncEngine:
        engine = create_engine(url, pool_size)
        engine.sync_engine.update_execution_options(compiled_cache=_STATEMENTS)
        if engine.dialect.name == "sqlite":
            event.listen(engine.sync_engine, "connect", _without_syncs)
        return engine

    setattr(database_engine, "create_engine", create)  # noqa: B010
    setattr(migrate, "ScriptDirectory", _ScriptsReadOnce)  # noqa: B010


@functools.cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(migrate.alembic_config())


class _ScriptsReadOnce:
    """Every start of a service looks which revision is the newest; the files do not change meanwhile."""

    from_config = staticmethod(lambda _: _scripts())


def _without_syncs(dbapi_connection: Any, record: Any) -> None:
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA synchronous=OFF")
    cursor.close()
