"""What the query classes need of a transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import CursorResult, Executable

_T = TypeVar("_T")
#: Both databases refuse a statement with more than some 32 000 parameters.
_MOST_PARAMETERS: Final = 10_000


def batches(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """As many at a time as one IN list may hold."""
    for start in range(0, len(values), _MOST_PARAMETERS):
        yield values[start : start + _MOST_PARAMETERS]


class Statements(Protocol):
    """Runs one statement inside the open transaction."""

    dialect: str
    touched: set[str]

    async def run(
        self, statement: Executable, rows: Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]: ...
