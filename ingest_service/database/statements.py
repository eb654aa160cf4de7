"""What the query classes need of a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import CursorResult, Executable, Select, Table
from sqlalchemy.dialects import postgresql, sqlite

_T = TypeVar("_T")
#: Both databases refuse a statement with more than some 32 000 parameters.
_MOST_PARAMETERS: Final = 10_000


def batches(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """As many at a time as one IN list may hold."""
    for start in range(0, len(values), _MOST_PARAMETERS):
        yield values[start : start + _MOST_PARAMETERS]


_INSERT: Final[Mapping[str, Callable[[Table], sqlite.Insert | postgresql.Insert]]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


def insert_into(table: Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can say what to do ON CONFLICT, which each database has a class of its own for."""
    return _INSERT[dialect](table)


class ReadOrLock:
    """One SELECT in two forms, built once: to build what every call asks took as long as to run it."""

    def __init__(self, query: Select[Any]) -> None:
        self._forms = {False: query, True: query.with_for_update()}

    def __getitem__(self, lock: bool) -> Select[Any]:
        """The form that locks its rows to the end of the transaction, or the one that does not."""
        return self._forms[lock]


class Statements(Protocol):
    """Runs one statement inside the open transaction."""

    dialect: str
    touched: set[str]

    async def run(
        self, statement: Executable, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]: ...
