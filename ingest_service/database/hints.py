"""Hints that some process committed something: whoever is told reads the rows, for a hint may be missing.

PostgreSQL says it itself (`notify.py`); a SQLite file is looked at (`tail.py`). Neither tells of progress,
which is neither numbered nor queued: a watcher's own poll shows it. Nor does a SQLite file tell that an
upload was taken over, which is no event: whoever holds it looks by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ingest_service.database.engine import Database
from ingest_service.database.notify import PostgresHints
from ingest_service.database.tail import SqliteHints

#: Called with an ingest's id, or with None: anything may have happened, everybody looks.
HintListener = Callable[[str | None], None]


class Hints(Protocol):
    """Runs in the background from `start` to `stop`; never fails, tries for ever."""

    @property
    def is_connected(self) -> bool:
        """Whether commits of other processes are noticed at present; without it, watchers poll."""

    def start(self) -> None:
        """Begins; calls the listener with None once it is connected, and whenever it is again."""

    async def stop(self) -> None:
        """Ends, and lets its connection go. Harmless if it was never started."""


def hints_of(database: Database, listener: HintListener) -> Hints:
    """What tells `listener` of other processes' commits to this database."""
    if database.engine.dialect.name == "sqlite":
        return SqliteHints(database.engine, listener)
    return PostgresHints(database.engine, database.origin, listener)
