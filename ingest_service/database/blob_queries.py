"""Queries on blobs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import and_, delete, func, not_, or_, select, update

from ingest_service.database.rows import blob_from_row
from ingest_service.database.statements import Statements, batches, insert_into
from ingest_service.database.tables import blobs, files, ingests
from ingest_service.database.types import latest_believed
from ingest_service.vocabulary.records import Blob, Inspection
from ingest_service.vocabulary.states import BlobState, FileState, IngestState

_REFERRING = [str(FileState.PUBLISHING), str(FileState.STORED)]
_ENDED = [str(IngestState.FAILED), str(IngestState.CANCELLED), str(IngestState.EXPIRED)]
#: A file refers to the blob from the moment it is being published under that digest, and for as long as its
#: ingest may still come to all its files. One that ended before it did never deploys anything: its bytes are
#: kept for the grace period only, though the file's row goes on saying STORED. Nor does one whose model was
#: deleted: it is history.
_REFERRED = (
    select(files.c.id)
    .join(ingests, ingests.c.id == files.c.ingest_id)
    .where(
        files.c.sha256 == blobs.c.sha256,
        or_(
            files.c.state == str(FileState.PUBLISHING),
            and_(
                files.c.state == str(FileState.STORED),
                ingests.c.deleted_at.is_(None),
                or_(ingests.c.stored_at.is_not(None), ingests.c.state.not_in(_ENDED)),
            ),
        ),
    )
    .correlate(blobs)
    .exists()
)


class BlobQueries:
    """Reads and writes `blobs`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def live(self, sha256: str) -> Blob | None:
        """The blob if it may be referred to.

        The row is locked in share mode, so that whoever would delete it waits until the reference that the
        caller writes in this transaction is there (design.md section 4, "references are rows").
        """
        return (await self.live_among([sha256])).get(sha256)

    async def live_among(self, digests: Collection[str]) -> dict[str, Blob]:
        """The same of many."""
        found: dict[str, Blob] = {}
        for some in batches(sorted(digests)):
            query = select(blobs).where(blobs.c.sha256.in_(some), blobs.c.state == str(BlobState.LIVE))
            # In one order, so that two who lock the same rows do not wait for each other.
            query = query.order_by(blobs.c.sha256).with_for_update(read=True)
            rows = (await self._statements.run(query)).mappings()
            found |= {row["sha256"]: blob_from_row(row) for row in rows}
        return found

    async def make_live(self, sha256: str, size_bytes: int, inspection: Inspection, now: datetime) -> None:
        """Records published bytes; a blob that was DELETING or CORRUPT is LIVE again."""
        values = {
            "size_bytes": size_bytes,
            "state": str(BlobState.LIVE),
            "format": inspection.format,
            "rules_version": inspection.rules_version,
            "facts": dict(inspection.facts),
            # They were hashed just now.
            "verified_at": now,
        }
        # One statement: two uploads of the same bytes may get here at the same moment.
        statement = insert_into(blobs, self._statements.dialect).values(
            sha256=sha256, created_at=now, **values
        )
        await self._statements.run(
            statement.on_conflict_do_update(index_elements=[blobs.c.sha256], set_=values)
        )

    async def accept(self, sha256: str, inspection: Inspection) -> None:
        """The rules of today have accepted it too."""
        await self._statements.run(
            update(blobs)
            .where(blobs.c.sha256 == sha256)
            .values(
                format=inspection.format,
                rules_version=inspection.rules_version,
                facts=dict(inspection.facts),
            )
        )

    async def some(self, digests: Sequence[str]) -> dict[str, Blob]:
        """Those of the digests that have a row, in whatever state."""
        query = select(blobs).where(blobs.c.sha256.in_(digests))
        rows = (await self._statements.run(query)).mappings()
        return {row["sha256"]: blob_from_row(row) for row in rows}

    async def referred(self, digests: Sequence[str]) -> set[str]:
        """Those of the digests that a file refers to."""
        found: set[str] = set()
        for some in batches(digests):
            query = select(blobs.c.sha256).where(blobs.c.sha256.in_(some), _REFERRED)
            found |= set((await self._statements.run(query)).scalars())
        return found

    async def unreferenced(self, created_before: datetime) -> list[Blob]:
        """LIVE blobs that are old enough and that no file refers to, and those whose removal was begun."""
        old = and_(blobs.c.state == str(BlobState.LIVE), blobs.c.created_at < created_before)
        query = select(blobs).where(or_(old, blobs.c.state == str(BlobState.DELETING)), not_(_REFERRED))
        return [blob_from_row(row) for row in (await self._statements.run(query)).mappings()]

    async def correct_times_ahead(self, now: datetime) -> None:
        """A blob that a clock ahead of ours made is as old as if it were made now: its grace begins."""
        ahead = update(blobs).where(blobs.c.created_at > latest_believed(now))
        await self._statements.run(ahead.values(created_at=now))

    async def mark_deleting(self, sha256: str, *, even_corrupt: bool = False) -> bool:
        """LIVE -> DELETING if still no file refers to it; True if it is DELETING now. A CORRUPT one is
        evidence, and stays unless somebody wants it gone.

        The row is locked first: a transaction that took a reference under `live`'s lock has then committed,
        and is seen by the second statement.
        """
        lock = select(blobs.c.sha256).where(blobs.c.sha256 == sha256).with_for_update()
        await self._statements.run(lock)
        kept = [] if even_corrupt else [str(BlobState.CORRUPT)]
        statement = (
            update(blobs)
            .where(blobs.c.sha256 == sha256, blobs.c.state.not_in(kept), not_(_REFERRED))
            .values(state=str(BlobState.DELETING))
        )
        return (await self._statements.run(statement)).rowcount == 1

    async def is_unwanted(self, sha256: str) -> bool:
        """It is DELETING and no file refers to it."""
        query = select(blobs.c.sha256).where(
            blobs.c.sha256 == sha256, blobs.c.state == str(BlobState.DELETING), not_(_REFERRED)
        )
        return (await self._statements.run(query)).scalar_one_or_none() is not None

    async def live_sizes(self) -> dict[str, int]:
        """Digest and length of every LIVE blob."""
        query = select(blobs.c.sha256, blobs.c.size_bytes).where(blobs.c.state == str(BlobState.LIVE))
        return {row.sha256: row.size_bytes for row in await self._statements.run(query)}

    async def mark_corrupt(self, sha256: str) -> None:
        """LIVE -> CORRUPT: it counts as absent until the same bytes are uploaded again."""
        statement = update(blobs).where(blobs.c.sha256 == sha256, blobs.c.state == str(BlobState.LIVE))
        await self._statements.run(statement.values(state=str(BlobState.CORRUPT)))

    async def mark_healed(self, sha256: str) -> None:
        """CORRUPT -> LIVE: the bytes were found to be there after all."""
        statement = update(blobs).where(blobs.c.sha256 == sha256, blobs.c.state == str(BlobState.CORRUPT))
        await self._statements.run(statement.values(state=str(BlobState.LIVE)))

    async def mark_verified(self, seen: Blob, now: datetime) -> bool:
        """Its bytes, read again, had its digest: LIVE, also if it was CORRUPT. False if the row is not as
        it was `seen` before they were read: then somebody knows better."""
        return await self._read_again(seen, state=str(BlobState.LIVE), verified_at=now)

    async def mark_rotten(self, seen: Blob) -> bool:
        """Its bytes, read again, had not: CORRUPT. False as for `mark_verified`: an upload that brings the
        same bytes writes `verified_at`, so it is never undone here."""
        return await self._read_again(seen, state=str(BlobState.CORRUPT))

    async def _read_again(self, seen: Blob, **values: object) -> bool:
        statement = update(blobs).where(
            blobs.c.sha256 == seen.sha256,
            blobs.c.state == str(seen.state),
            blobs.c.verified_at.is_not_distinct_from(seen.verified_at),
        )
        return (await self._statements.run(statement.values(**values))).rowcount == 1

    async def not_verified_since(self, before: datetime, now: datetime, limit: int) -> list[Blob]:
        """LIVE blobs whose bytes nobody has read since, the longest ago first.

        A reading that says it was after `now` is not believed: those blobs come last.
        """
        last = func.coalesce(blobs.c.verified_at, blobs.c.created_at)
        query = (
            select(blobs)
            .where(blobs.c.state == str(BlobState.LIVE), or_(last < before, last > latest_believed(now)))
            .order_by(last, blobs.c.sha256)
            .limit(limit)
        )
        return [blob_from_row(row) for row in (await self._statements.run(query)).mappings()]

    async def remove_deleting(self, sha256: str) -> None:
        """The row of a blob whose bytes are gone; one that became LIVE meanwhile stays."""
        await self._statements.run(
            delete(blobs).where(blobs.c.sha256 == sha256, blobs.c.state == str(BlobState.DELETING))
        )

    async def known(self, digests: Sequence[str]) -> set[str]:
        """Those of the digests that have a row, or that a file is being published under."""
        known: set[str] = set()
        for some in batches(digests):
            rows = await self._statements.run(select(blobs.c.sha256).where(blobs.c.sha256.in_(some)))
            publishing = await self._statements.run(
                select(files.c.sha256).where(files.c.sha256.in_(some), files.c.state.in_(_REFERRING))
            )
            known |= {*rows.scalars(), *publishing.scalars()}
        return known

    async def totals(self) -> tuple[int, int]:
        """How many LIVE blobs there are, and their bytes."""
        query = select(
            func.count().label("blobs"),
            func.coalesce(func.sum(blobs.c.size_bytes), 0).label("bytes"),
        ).where(blobs.c.state == str(BlobState.LIVE))
        totals = (await self._statements.run(query)).mappings().one()
        return int(totals["blobs"]), int(totals["bytes"])
