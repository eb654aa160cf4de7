"""SQLAlchemy 2 async tables, queries and migrations; SQLite and PostgreSQL from one code path."""

from ingest_service.database.deployment_queries import Lease
from ingest_service.database.engine import Conflict, Database
from ingest_service.database.hints import Hints, hints_of
from ingest_service.database.transaction import Transaction

__all__ = ["Conflict", "Database", "Hints", "Lease", "Transaction", "hints_of"]
