"""Queries on ingests with their files and deployments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping as Row
from sqlalchemy import ScalarSelect, Select, and_, bindparam, func, insert, literal, select, update

from ingest_service.database.deployment_queries import DeploymentQueries
from ingest_service.database.event_queries import EventQueries
from ingest_service.database.file_queries import FileQueries
from ingest_service.database.rows import changed, ingest_from_rows, ingest_values
from ingest_service.database.statements import ReadOrLock, Statements, batches
from ingest_service.database.tables import deployments, ingests
from ingest_service.database.types import UtcMicros
from ingest_service.vocabulary.records import Ingest, NewEvent
from ingest_service.vocabulary.states import DEPLOYMENT_MOVING, INGEST_STORED, DeploymentState, IngestState

_MOVING = [str(state) for state in DEPLOYMENT_MOVING]
#: The catalog counts an ingest from the moment all its bytes are stored until its model is deleted.
IN_CATALOG = and_(ingests.c.stored_at.is_not(None), ingests.c.deleted_at.is_(None))


_BY_ID = ReadOrLock(select(ingests).where(ingests.c.id == bindparam("value")))
_BY_REQUEST_ID = ReadOrLock(select(ingests).where(ingests.c.request_id == bindparam("value")))


def _number_of(ingest_id: str) -> ScalarSelect[int]:
    """Its place in the order of acceptance, which decides between ingests of one name."""
    return select(ingests.c.number).where(ingests.c.id == ingest_id).scalar_subquery()


class IngestQueries:
    """Reads and writes `ingests`, whole: an ingest always comes with its files and deployments."""

    def __init__(
        self,
        statements: Statements,
        files: FileQueries,
        deployments: DeploymentQueries,
        events: EventQueries,
    ) -> None:
        self._statements = statements
        self._files = files
        self._deployments = deployments
        self._events = events

    async def get(self, ingest_id: str) -> Ingest | None:
        """The ingest as it is."""
        return await self._one(_BY_ID[False], ingest_id, lock=False)

    async def lock(self, ingest_id: str) -> Ingest | None:
        """The ingest, locked to the end of the transaction: nobody else changes it or its parts.

        The rows of its parts are locked too, for checkpoints, claims and renewals write those alone: a claim
        between our look at the fencing number and our write would otherwise be written over.
        """
        return await self._one(_BY_ID[True], ingest_id, lock=True)

    async def by_request_id(self, request_id: str) -> Ingest | None:
        """The ingest that was made with this request_id, locked like `lock` does."""
        return await self._one(_BY_REQUEST_ID[True], request_id, lock=True)

    async def lock_in_catalog(self, canonical_model: str) -> list[Ingest]:
        """Every ingest of the name that the catalog knows, locked as by `lock`, the newest first."""
        query = (
            select(ingests)
            .where(ingests.c.canonical_model == canonical_model, IN_CATALOG)
            .order_by(ingests.c.number.desc())
            .with_for_update()
        )
        rows = (await self._statements.run(query)).mappings().all()
        return [one for some in batches(rows) for one in await self.with_parts(some, lock=True)]

    async def page(
        self,
        *,
        canonical_model: str | None,
        states: Sequence[IngestState],
        before_number: int | None,
        limit: int,
    ) -> tuple[list[Ingest], int | None]:
        """Newest first; the second value is `before_number` of the next page, None at the end."""
        query = select(ingests).order_by(ingests.c.number.desc()).limit(limit + 1)
        if canonical_model is not None:
            query = query.where(ingests.c.canonical_model == canonical_model)
        if states:
            query = query.where(ingests.c.state.in_([str(state) for state in states]))
        if before_number is not None:
            query = query.where(ingests.c.number < before_number)
        rows = (await self._statements.run(query)).mappings().all()
        page = rows[:limit]
        more = page[-1]["number"] if len(rows) > limit else None
        return await self.with_parts(page), more

    async def older_with_moving_deployments(self, ingest: Ingest) -> list[str]:
        """Ids of ingests of the same name, accepted before it, the newest first, with something to deploy."""
        older = select(ingests.c.id).where(
            ingests.c.canonical_model == ingest.canonical_model,
            ingests.c.number < _number_of(ingest.id),
            ingests.c.id.in_(select(deployments.c.ingest_id).where(deployments.c.state.in_(_MOVING))),
        )
        return list((await self._statements.run(older.order_by(ingests.c.number.desc()))).scalars())

    async def targets_of_newer(self, ingest: Ingest) -> set[str]:
        """Targets that a stored ingest of the same name, accepted after it, was meant for."""
        newer = (
            select(deployments.c.target)
            .join(ingests, ingests.c.id == deployments.c.ingest_id)
            .where(
                ingests.c.canonical_model == ingest.canonical_model,
                ingests.c.number > _number_of(ingest.id),
                ingests.c.stored_at.is_not(None),
                deployments.c.state != str(DeploymentState.CANCELLED),
            )
        )
        return set((await self._statements.run(newer)).scalars())

    async def insert(self, ingest: Ingest, news: Sequence[NewEvent]) -> Ingest:
        """Writes a new ingest and its first events; answers it as written."""
        numbered = replace(ingest, last_sequence=len(news))
        stored_at = ingest.created_at if ingest.state in INGEST_STORED else None
        await self._statements.run(insert(ingests).values(**ingest_values(numbered), stored_at=stored_at))
        await self._files.insert(ingest.files)
        await self._deployments.insert(ingest.deployments)
        await self._events.append(ingest.id, 0, news, ingest.created_at)
        return numbered

    async def save(self, before: Ingest, after: Ingest, news: Sequence[NewEvent], now: datetime) -> Ingest:
        """Writes what changed of an ingest that `lock` answered, and its events; answers it as written."""
        last_sequence = await self._events.append(before.id, before.last_sequence, news, now)
        after = replace(after, last_sequence=last_sequence)
        for old_file, new_file in zip(before.files, after.files, strict=True):
            await self._files.save(old_file, new_file)
            if new_file.writer_epoch != old_file.writer_epoch:
                # No event tells of a takeover, but whoever writes the file in another process is to hear it.
                self._statements.touched.add(before.id)
        for old, new in zip(before.deployments, after.deployments, strict=True):
            await self._deployments.save(old, new)
            if old.next_attempt_at is not None and new.next_attempt_at is None:
                # Due now, perhaps without an event: workers are to hear it.
                self._statements.touched.add(before.id)
        values = changed(ingest_values(before), ingest_values(replace(after, updated_at=now)))
        if before.state not in INGEST_STORED and after.state in INGEST_STORED:
            # Once: an ingest that failed on its targets and is tried again was stored long ago.
            values["stored_at"] = func.coalesce(ingests.c.stored_at, literal(now, UtcMicros))
        if values:
            await self._statements.run(update(ingests).where(ingests.c.id == after.id).values(**values))
        return replace(after, updated_at=now)

    async def with_parts(self, rows: Sequence[Row], *, lock: bool = False) -> list[Ingest]:
        """Ingests from their rows, files and deployments fetched with one query each."""
        if not rows:
            return []
        ids = [row["id"] for row in rows]
        files = await self._files.of_ingests(ids, lock=lock)
        deployments = await self._deployments.of_ingests(ids, lock=lock)
        return [ingest_from_rows(row, files[row["id"]], deployments[row["id"]]) for row in rows]

    async def _one(self, query: Select[Any], value: str, *, lock: bool) -> Ingest | None:
        row = (await self._statements.run(query, {"value": value})).mappings().one_or_none()
        return None if row is None else (await self.with_parts([row], lock=lock))[0]
