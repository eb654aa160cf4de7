"""Alembic's entry point: runs on the connection that `migrate` holds, in its transaction."""

from __future__ import annotations

from alembic import context

from ingest_service.database.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("migrations run through `python -m ingest_service migrate`")
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
