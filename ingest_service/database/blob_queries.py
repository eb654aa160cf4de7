"""Queries on blobs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Table, func, select
from sqlalchemy.dialects import postgresql, sqlite

from ingest_service.database.rows import blob_from_row
from ingest_service.database.statements import Statements
from ingest_service.database.tables import blobs
from ingest_service.vocabulary.records import Blob
from ingest_service.vocabulary.states import BlobState

_INSERT: dict[str, Callable[[Table], sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


class BlobQueries:
    """Reads and writes `blobs`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def live(self, sha256: str) -> Blob | None:
        """The blob if it may be referred to.

        The row is locked in share mode, so that whoever would delete it waits until the reference that the
        caller writes in this transaction is there (design.md section 4, "references are rows").
        """
        query = select(blobs).where(blobs.c.sha256 == sha256, blobs.c.state == str(BlobState.LIVE))
        row = (await self._statements.run(query.with_for_update(read=True))).mappings().one_or_none()
        return None if row is None else blob_from_row(row)

    async def make_live(self, sha256: str, size_bytes: int, file_format: str, now: datetime) -> None:
        """Records published bytes; a blob that was DELETING or CORRUPT is LIVE again."""
        values = {"size_bytes": size_bytes, "state": str(BlobState.LIVE), "format": file_format}
        # One statement: two uploads of the same bytes may get here at the same moment.
        statement = _INSERT[self._statements.dialect](blobs).values(sha256=sha256, created_at=now, **values)
        await self._statements.run(
            statement.on_conflict_do_update(
                index_elements=[blobs.c.sha256], set_=values, where=blobs.c.state != str(BlobState.LIVE)
            )
        )

    async def totals(self) -> tuple[int, int]:
        """How many LIVE blobs there are, and their bytes."""
        query = select(
            func.count().label("blobs"),
            func.coalesce(func.sum(blobs.c.size_bytes), 0).label("bytes"),
        ).where(blobs.c.state == str(BlobState.LIVE))
        totals = (await self._statements.run(query)).mappings().one()
        return int(totals["blobs"]), int(totals["bytes"])
