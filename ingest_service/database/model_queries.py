"""The catalog: one model for each canonical name with a stored ingest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping as Row
from sqlalchemy import Select, func, or_, select

from ingest_service.database.blob_queries import BlobQueries
from ingest_service.database.ingest_queries import IN_CATALOG, IngestQueries
from ingest_service.database.rows import deployment_from_row
from ingest_service.database.statements import Statements
from ingest_service.database.tables import deployments, files, ingests
from ingest_service.vocabulary.records import Deployment, Model
from ingest_service.vocabulary.states import DEPLOYMENT_MOVING, DeploymentState

_EARLIER_DIGESTS = 20


class ModelQueries:
    """Reads models. An ingest counts once all its bytes are stored, until its model is deleted."""

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
        query = select(func.count(func.distinct(ingests.c.canonical_model))).where(IN_CATALOG)
        return int((await self._statements.run(query)).scalar_one())

    async def ingest_ids(self, canonical_model: str) -> list[str]:
        """Every ingest that makes up the model, the newest first."""
        query = select(ingests.c.id).where(ingests.c.canonical_model == canonical_model, IN_CATALOG)
        return list((await self._statements.run(query.order_by(ingests.c.number.desc()))).scalars())

    async def may_be_on(self, canonical_model: str) -> dict[str, Deployment]:
        """By target: the last deployment of the name there that may have made the model, or lost it again.

        Whatever a worker once claimed counts: a retry sets `attempts` back, but never the fencing number.
        Deleted models count: the catalog may forget a name while targets still have it. The newest is last.
        """
        tried = or_(
            deployments.c.state.in_([str(DeploymentState.READY), str(DeploymentState.LOST)]),
            deployments.c.fencing > 0,
        )
        query = (
            select(deployments)
            .join(ingests, ingests.c.id == deployments.c.ingest_id)
            .where(ingests.c.canonical_model == canonical_model, tried)
            .order_by(ingests.c.number)
        )
        found: dict[str, Deployment] = {}
        for row in (await self._statements.run(query)).mappings():
            found.pop(row["target"], None)
            found[row["target"]] = deployment_from_row(row)
        return found

    async def moving(self, canonical_model: str) -> Deployment | None:
        """A deployment of the model that can still move, if there is one."""
        query = (
            select(deployments)
            .join(ingests, ingests.c.id == deployments.c.ingest_id)
            .where(
                ingests.c.canonical_model == canonical_model,
                IN_CATALOG,
                deployments.c.state.in_([str(state) for state in DEPLOYMENT_MOVING]),
            )
            .order_by(ingests.c.number.desc(), deployments.c.position)
            .limit(1)
        )
        row = (await self._statements.run(query)).mappings().one_or_none()
        return None if row is None else deployment_from_row(row)

    @staticmethod
    def _newest() -> Select[Any]:
        newest = select(func.max(ingests.c.number)).where(IN_CATALOG).group_by(ingests.c.canonical_model)
        return select(ingests).where(ingests.c.number.in_(newest))

    async def _models(self, query: Select[Any]) -> list[Model]:
        rows = (await self._statements.run(query)).mappings().all()
        words = await self._newest_words([row["canonical_model"] for row in rows])
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
                    deployments=tuple(words[ingest.canonical_model]),
                )
            )
        return models

    async def _newest_words(self, canonical_models: Sequence[str]) -> dict[str, list[Deployment]]:
        """Of each model: for every target the deployment of the ingest that was accepted last."""
        age = func.row_number().over(
            partition_by=(ingests.c.canonical_model, deployments.c.target), order_by=ingests.c.number.desc()
        )
        ranked = (
            select(deployments.c.id, ingests.c.canonical_model, age.label("age"))
            .join(ingests, ingests.c.id == deployments.c.ingest_id)
            .where(ingests.c.canonical_model.in_(canonical_models), IN_CATALOG)
            .subquery()
        )
        query = (
            select(deployments, ranked.c.canonical_model)
            .join(ranked, ranked.c.id == deployments.c.id)
            .where(ranked.c.age == 1)
            .order_by(deployments.c.position, deployments.c.target)
        )
        found: dict[str, list[Deployment]] = {name: [] for name in canonical_models}
        for row in (await self._statements.run(query)).mappings():
            found[row["canonical_model"]].append(deployment_from_row(row))
        return found

    async def _earlier(self, newest: Row, digests: Sequence[str]) -> tuple[str, ...]:
        query = (
            select(files.c.sha256)
            .join(ingests, ingests.c.id == files.c.ingest_id)
            .where(
                ingests.c.canonical_model == newest["canonical_model"],
                IN_CATALOG,
                ingests.c.number < newest["number"],
                files.c.sha256.is_not(None),
            )
            .group_by(files.c.sha256)
            .order_by(func.max(ingests.c.number).desc())
            .limit(_EARLIER_DIGESTS + len(digests))
        )
        found = (await self._statements.run(query)).scalars().all()
        return tuple(digest for digest in found if digest not in digests)[:_EARLIER_DIGESTS]
