"""The claim, asked every second or two, looks at what is to be done and not through the whole history."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import event

from ingest_service.database import Database, Transaction
from ingest_service.database.tables import deployments, files, ingests
from tests.database.records import digest, forwarded, insert, later, sql
from tests.database.test_claims import claim

_HISTORY = 3000


async def _with_history(database: Database) -> None:
    """As many done ingests as a year may bring, written at one go."""
    ids = [f"old{index}" for index in range(_HISTORY)]
    common: dict[str, Any] = {"failure": None}

    async def work(tx: Transaction) -> None:
        run = tx.store._statements.run
        await run(
            ingests.insert(),
            [
                {
                    **common, "id": one, "model": one, "canonical_model": one, "state": "READY",
                    "options": {}, "request_id": None, "request_fingerprint": None, "last_sequence": 0,
                    "created_at": later(0), "updated_at": later(0), "stored_at": later(0),
                }
                for one in ids
            ],
        )  # fmt: skip
        await run(
            files.insert(),
            [
                {
                    **common, "id": f"f{one}", "ingest_id": one, "position": 0, "file_name": "m",
                    "role": "MODEL", "state": "STORED", "size_bytes": 1, "committed_size": 1,
                    "declared_sha256": None,
                    "sha256": digest(index), "deduplicated": False, "writer_epoch": 1,
                    "inspected": True,
                    "progress_at": later(0),
                }
                for index, one in enumerate(ids)
            ],
        )  # fmt: skip
        await run(
            deployments.insert(),
            [
                {
                    **common, "id": f"d{one}", "ingest_id": one, "position": 0, "target": "default",
                    "state": "READY", "attempts": 1, "fencing": 1, "lease_owner": None,
                    "lease_until_us": None, "next_attempt_at": None, "retry_until": None, "status": "",
                    "status_events": 0, "progress_bytes": 0, "progress_total_bytes": 0, "target_version": "",
                    "layer_digest": "", "manifest_digest": "", "create_baseline": None,
                    "cancel_requested": False,
                }
                for one in ids
            ],
        )  # fmt: skip

    await database.transact(work)


async def _plan(database: Database) -> str:
    statements: list[tuple[str, Any]] = []

    def ran(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("UPDATE deployments"):
            statements.append((statement, parameters))

    event.listen(database.engine.sync_engine, "before_cursor_execute", ran)
    await claim(database)
    event.remove(database.engine.sync_engine, "before_cursor_execute", ran)
    ((statement, parameters),) = statements
    prefix = {"sqlite": "EXPLAIN QUERY PLAN ", "postgresql": "EXPLAIN "}[database.engine.dialect.name]
    async with database.engine.begin() as connection:
        rows = await connection.exec_driver_sql(prefix + statement, parameters)
        return "\n".join(str(row[-1]) for row in rows)


async def test_no_table_is_read_from_end_to_end(database: Database) -> None:
    await _with_history(database)
    await insert(database, *(forwarded() for _ in range(3)))
    if database.engine.dialect.name == "postgresql":
        # Its autovacuum would; on SQLite nobody does.
        await sql(database, "ANALYZE")
    plan = await _plan(database)
    assert not re.search(r"Seq Scan|^SCAN \w+$", plan, re.MULTILINE), plan
    assert re.search(r"ix_ingests_state", plan), plan
