"""Queries on events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import insert, select

from ingest_service.database.rows import event_from_row
from ingest_service.database.statements import Statements
from ingest_service.database.tables import events
from ingest_service.vocabulary.records import Event, NewEvent


class EventQueries:
    """Reads and appends `events`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def append(
        self, ingest_id: str, after_sequence: int, news: Sequence[NewEvent], now: datetime
    ) -> int:
        """Numbers `news` from `after_sequence` + 1 and writes them; answers the last number.

        The caller holds the lock on the ingest's row, which is what makes the numbers gap-free and their
        order the order of commits (peers.md section 5, WatchIngest).
        """
        if not news:
            return after_sequence
        rows = [
            {
                "ingest_id": ingest_id,
                "sequence": after_sequence + index,
                "created_at": now,
                "kind": event.kind,
                "body": dict(event.body),
            }
            for index, event in enumerate(news, start=1)
        ]
        await self._statements.run(insert(events), rows)
        self._statements.touched.add(ingest_id)
        return after_sequence + len(rows)

    async def after(self, ingest_id: str, sequence: int, limit: int) -> list[Event]:
        """At most `limit` events with a higher number, in order."""
        query = (
            select(events)
            .where(events.c.ingest_id == ingest_id, events.c.sequence > sequence)
            .order_by(events.c.sequence)
            .limit(limit)
        )
        return [event_from_row(row) for row in (await self._statements.run(query)).mappings()]
