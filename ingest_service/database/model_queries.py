"""The catalog: one model for each canonical name with a stored ingest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping as Row
from sqlalchemy import Select, func, select

from ingest_service.database.blob_queries import BlobQueries
from ingest_service.database.ingest_queries import IngestQueries
from ingest_service.database.statements import Statements
from ingest_service.database.tables import files, ingests
from ingest_service.vocabulary.records import Model

_EARLIER_DIGESTS = 20


class ModelQueries:
    """Reads models. An ingest counts once all its bytes are stored (`stored_at` is set)."""

    def __init__(
        self, statements: Statements, ingest_queries: IngestQueries, blob_queries: BlobQueries
    ) -> None:
        self._statements = statements
        self._ingests = ingest_queries
        self._blobs = blob_queries

    async def get(self, canonical_model: str) -> Model | None:
        """The model of that canonical name."""
        models = await self._models(self._newest().where(ingests.c.canonical_model == canonical_model))
        return models[0] if models else None

    async def page(self, *, prefix: str, after: str | None, limit: int) -> tuple[list[Model], str | None]:
        """By canonical name; the second value is `after` of the next page, None at the end."""
        query = self._newest().order_by(ingests.c.canonical_model).limit(limit + 1)
        if prefix:
            query = query.where(ingests.c.canonical_model.startswith(prefix, autoescape=True))
        if after is not None:
            query = query.where(ingests.c.canonical_model > after)
        models = await self._models(query)
        page = models[:limit]
        return page, page[-1].canonical_model if len(models) > limit else None

    async def count(self) -> int:
        """How many models the catalog lists."""
        query = select(func.count(func.distinct(ingests.c.canonical_model))).where(
            ingests.c.stored_at.is_not(None)
        )
        return int((await self._statements.run(query)).scalar_one())

    @staticmethod
    def _newest() -> Select[Any]:
        newest = (
            select(func.max(ingests.c.number))
            .where(ingests.c.stored_at.is_not(None))
            .group_by(ingests.c.canonical_model)
        )
        return select(ingests).where(ingests.c.number.in_(newest))

    async def _models(self, query: Select[Any]) -> list[Model]:
        rows = (await self._statements.run(query)).mappings().all()
        models = []
        for row, ingest in zip(rows, await self._ingests.with_parts(rows), strict=True):
            digests = [file.sha256 for file in ingest.files if file.sha256]
            models.append(
                Model(
                    canonical_model=ingest.canonical_model,
                    newest=ingest,
                    stored_at=row["stored_at"],
                    earlier_digests=await self._earlier(row, digests),
                    blobs=await self._blobs.some(digests),
                )
            )
        return models

    async def _earlier(self, newest: Row, digests: Sequence[str]) -> tuple[str, ...]:
        query = (
            select(files.c.sha256)
            .join(ingests, ingests.c.id == files.c.ingest_id)
            .where(
                ingests.c.canonical_model == newest["canonical_model"],
                ingests.c.stored_at.is_not(None),
                ingests.c.number < newest["number"],
                files.c.sha256.is_not(None),
            )
            .group_by(files.c.sha256)
            .order_by(func.max(ingests.c.number).desc())
            .limit(_EARLIER_DIGESTS + len(digests))
        )
        found = (await self._statements.run(query)).scalars().all()
        return tuple(digest for digest in found if digest not in digests)[:_EARLIER_DIGESTS]
