"""What the query classes need of a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import CursorResult, Executable


class Statements(Protocol):
    """Runs one statement inside the open transaction."""

    dialect: str
    touched: set[str]

    async def run(
        self, statement: Executable, rows: Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]: ...
