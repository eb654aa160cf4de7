"""One transaction, as the rooms above see it: narrow queries that take and give records.

A transaction belongs to the task that began it. It is handed to a callback of `Database.transact` or
`Database.read`, which must do nothing but use it: no network, no files, no waiting for anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import CursorResult, Executable
from sqlalchemy.ext.asyncio import AsyncConnection

from ingest_service.database.blob_queries import BlobQueries
from ingest_service.database.deployment_queries import DeploymentQueries
from ingest_service.database.event_queries import EventQueries
from ingest_service.database.file_queries import FileQueries
from ingest_service.database.ingest_queries import IngestQueries
from ingest_service.database.model_queries import ModelQueries
from ingest_service.database.store_queries import StoreQueries
from ingest_service.database.target_queries import TargetQueries


class Statements:
    """Runs statements on the transaction's connection, and only in the task that owns it."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._owner = asyncio.current_task()
        self.dialect = connection.dialect.name
        #: Ingests that got an event or a new writer; who waits for them is woken after the commit.
        self.touched: set[str] = set()

    async def run(
        self, statement: Executable, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        if asyncio.current_task() is not self._owner:
            raise RuntimeError("a transaction was used by a task that did not begin it")
        return await self._connection.execute(statement, rows)


class Transaction:
    """The queries of one transaction, by subject."""

    def __init__(self, statements: Statements) -> None:
        self.store = StoreQueries(statements)
        self.blobs = BlobQueries(statements)
        self.targets = TargetQueries(statements)
        self.files = FileQueries(statements)
        self.deployments = DeploymentQueries(statements)
        self.events = EventQueries(statements)
        self.ingests = IngestQueries(statements, self.files, self.deployments, self.events)
        self.models = ModelQueries(statements, self.ingests, self.blobs)
