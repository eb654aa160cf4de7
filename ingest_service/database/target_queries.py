"""Queries on targets: whose turn it is on one, and who serves it at all."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select, update

from ingest_service.database.statements import Statements, insert_into
from ingest_service.database.tables import targets
from ingest_service.database.types import CLOCK_SLACK_SECONDS, database_now, lease_has_ended


class TargetQueries:
    """Reads and writes `targets`. Times are the database's."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def take_turn(self, target: str, owner: str, lease_seconds: float) -> bool:
        """Takes or renews the one turn to create or delete on a target; False while another has it.

        Needs a row, which `serve` makes.
        """
        now = database_now()
        mine = (
            update(targets)
            .where(
                targets.c.name == target,
                or_(
                    targets.c.lease_owner.is_(None),
                    targets.c.lease_owner == owner,
                    lease_has_ended(targets.c.lease_until_us, now),
                ),
            )
            .values(lease_owner=owner, lease_until_us=now + int(lease_seconds * 1_000_000))
        )
        return (await self._statements.run(mine)).rowcount == 1

    async def end_turn(self, target: str, owner: str) -> None:
        """Gives the turn up before its time, if it is still the owner's."""
        mine = update(targets).where(targets.c.name == target, targets.c.lease_owner == owner)
        await self._statements.run(mine.values(lease_owner=None, lease_until_us=None))

    async def serve(self, names: Sequence[str]) -> None:
        """This process has these targets in its settings, and works for them."""
        now = database_now()
        for name in sorted(names):
            statement = insert_into(targets, self._statements.dialect).values(name=name, served_at_us=now)
            await self._statements.run(
                statement.on_conflict_do_update(index_elements=[targets.c.name], set_={"served_at_us": now})
            )

    async def correct_times_ahead(self) -> None:
        """Who is said to serve a target at a time to come, by a clock that was ahead, serves it now.

        It is believed for its own span from now, no longer; and no shorter, for the process may well live.
        """
        now = database_now()
        ahead = targets.c.served_at_us > now + int(CLOCK_SLACK_SECONDS * 1_000_000)
        await self._statements.run(update(targets).where(ahead).values(served_at_us=now))

    async def now_us(self) -> int:
        """The database's clock."""
        return int((await self._statements.run(select(database_now()))).scalar_one())

    async def served_within(self, seconds: float) -> set[str]:
        """Targets that some process has said to serve within that time."""
        query = select(targets.c.name).where(
            targets.c.served_at_us > database_now() - int(seconds * 1_000_000)
        )
        return set((await self._statements.run(query)).scalars())
