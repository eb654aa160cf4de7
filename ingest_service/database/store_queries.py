"""The store id in the database."""

from __future__ import annotations

from sqlalchemy import insert, select

from ingest_service.database.statements import Statements
from ingest_service.database.tables import store


class StoreQueries:
    """Reads and writes the one row of `store`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def store_id(self) -> str | None:
        """The store's id, or None before the first boot."""
        return (await self._statements.run(select(store.c.store_id))).scalar_one_or_none()

    async def set_store_id(self, store_id: str) -> None:
        """Writes the id of a new store; a second one is refused by the primary key."""
        await self._statements.run(insert(store).values(id=1, store_id=store_id))
