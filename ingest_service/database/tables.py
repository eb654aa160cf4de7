"""The tables. Migrations create them; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from ingest_service.database.types import UtcMicros

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only for a column of exactly the type INTEGER.
_ROW_NUMBER = BigInteger().with_variant(Integer, "sqlite")

#: One row: the id that data directory and database share (design.md section 4, "the right store").
store = Table(
    "store",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("store_id", String(64), nullable=False),
)

#: `number` is the order of acceptance, which decides between ingests of one name (design.md section 5).
ingests = Table(
    "ingests",
    metadata,
    Column("number", _ROW_NUMBER, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("model", Text, nullable=False),
    Column("canonical_model", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("options", JSON, nullable=False),
    Column("request_id", String(128), unique=True),
    Column("request_fingerprint", String(64)),
    Column("last_sequence", BigInteger, nullable=False),
    Column("failure", JSON(none_as_null=True)),
    Column("created_at", UtcMicros, nullable=False),
    Column("updated_at", UtcMicros, nullable=False),
    Column("stored_at", UtcMicros),
    #: When the catalog was told to forget it; its row stays as history.
    Column("deleted_at", UtcMicros),
    Index(None, "canonical_model", "number"),
    Index(None, "state"),
    sqlite_autoincrement=True,
)

#: A STORED file is a reference to the blob of its sha256.
files = Table(
    "files",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("ingest_id", ForeignKey("ingests.id", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("file_name", String(255), nullable=False),
    Column("role", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("committed_size", BigInteger, nullable=False),
    Column("declared_sha256", String(71)),
    Column("sha256", String(71)),
    Column("deduplicated", Boolean, nullable=False),
    Column("writer_epoch", BigInteger, nullable=False),
    #: An event has told what its header says.
    Column("inspected", Boolean, nullable=False),
    Column("failure", JSON(none_as_null=True)),
    #: When it was declared, taken by a writer, or last got durable bytes.
    Column("progress_at", UtcMicros, nullable=False),
    UniqueConstraint("ingest_id", "file_name"),
    Index(None, "sha256"),
    Index(None, "state", "progress_at"),
)

blobs = Table(
    "blobs",
    metadata,
    Column("sha256", String(71), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("format", String(16), nullable=False),
    Column("created_at", UtcMicros, nullable=False),
    #: The version of the format rules that accepted it; 0: none that read its whole header.
    Column("rules_version", Integer, nullable=False),
    #: What its header says; none before it was read.
    Column("facts", JSON(none_as_null=True)),
    #: When its bytes were last read again and had its digest.
    Column("verified_at", UtcMicros),
)

#: One process at a time does what the lease is named after (the sweep).
leases = Table(
    "leases",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("until_us", BigInteger, nullable=False),
)

#: The turn to create or delete on a target is leased: one at a time, across replicas (design.md section 5).
targets = Table(
    "targets",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("lease_owner", String(128)),
    Column("lease_until_us", BigInteger),
    #: When a process that has it in its settings last said so.
    Column("served_at_us", BigInteger, nullable=False),
)

#: The row is the job (design.md section 5).
deployments = Table(
    "deployments",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("ingest_id", ForeignKey("ingests.id", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("target", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("fencing", BigInteger, nullable=False),
    Column("lease_owner", String(64)),
    Column("lease_until_us", BigInteger),
    Column("next_attempt_at", UtcMicros),
    Column("retry_until", UtcMicros),
    Column("failure", JSON(none_as_null=True)),
    Column("status", Text, nullable=False),
    Column("status_events", Integer, nullable=False),
    Column("progress_bytes", BigInteger, nullable=False),
    Column("progress_total_bytes", BigInteger, nullable=False),
    Column("target_version", String(128), nullable=False),
    Column("layer_digest", String(128), nullable=False),
    Column("manifest_digest", String(128), nullable=False),
    Column("create_baseline", JSON(none_as_null=True)),
    Column("cancel_requested", Boolean, nullable=False),
    Column("removed_at", UtcMicros),
    UniqueConstraint("ingest_id", "target"),
    Index(None, "state", "next_attempt_at"),
)

events = Table(
    "events",
    metadata,
    Column("ingest_id", ForeignKey("ingests.id", ondelete="CASCADE"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("created_at", UtcMicros, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("body", JSON, nullable=False),
)
