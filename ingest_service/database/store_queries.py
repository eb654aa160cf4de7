"""The store as a whole in the database: its id, its lock, leases on work that one process does."""

from __future__ import annotations

from sqlalchemy import insert, or_, select, update

from ingest_service.database.statements import Statements
from ingest_service.database.tables import leases, store
from ingest_service.database.types import LONGEST_LEASE_SECONDS, database_now, lease_has_ended


class StoreQueries:
    """Reads and writes the one row of `store`, and `leases`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def store_id(self) -> str | None:
        """The store's id, or None before the first boot."""
        return (await self._statements.run(select(store.c.store_id))).scalar_one_or_none()

    async def prove_writable(self) -> None:
        """Writes the store's row as it is: what cannot be written fails here or at the commit."""
        await self._statements.run(update(store).values(store_id=store.c.store_id))

    async def lock(self) -> None:
        """Whoever holds this row decides alone about the store's room, to the end of the transaction."""
        await self._statements.run(select(store.c.id).with_for_update())

    async def take_lease(self, name: str, owner: str, seconds: float) -> bool:
        """Takes or renews a lease by the database's clock; False while another owner has it."""
        now = database_now()
        values = {"owner": owner, "until_us": now + int(seconds * 1_000_000)}
        ended = lease_has_ended(leases.c.until_us, now, max(seconds, LONGEST_LEASE_SECONDS))
        is_free = or_(leases.c.owner == owner, ended)
        mine = update(leases).where(leases.c.name == name, is_free)
        if (await self._statements.run(mine.values(**values))).rowcount == 1:
            return True
        taken = select(leases.c.name).where(leases.c.name == name)
        if (await self._statements.run(taken)).scalar_one_or_none() is not None:
            return False
        # Two first takers at once: the second is refused by the primary key (Conflict).
        await self._statements.run(insert(leases).values(name=name, **values))
        return True

    async def release_lease(self, name: str, owner: str) -> None:
        """Gives a lease up before its time, if it is still the owner's."""
        mine = update(leases).where(leases.c.name == name, leases.c.owner == owner)
        await self._statements.run(mine.values(until_us=0))

    async def set_store_id(self, store_id: str) -> None:
        """Writes the id of a new store; a second one is refused by the primary key."""
        await self._statements.run(insert(store).values(id=1, store_id=store_id))
