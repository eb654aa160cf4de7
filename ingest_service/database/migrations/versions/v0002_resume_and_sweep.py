"""Files tell when they last made progress; leases for what one process at a time may do."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    with op.batch_alter_table("files") as files:
        files.add_column(sa.Column("progress_at", sa.BigInteger(), nullable=False, server_default="0"))
        files.drop_index(op.f("ix_files_state"))
        files.create_index(op.f("ix_files_state_progress_at"), ["state", "progress_at"], unique=False)
    # Files from before count from now on, not from 1970.
    now = {
        "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
        "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
    }[op.get_context().dialect.name]
    op.execute(f"UPDATE files SET progress_at = {now}")  # noqa: S608 (our own two expressions)
    with op.batch_alter_table("files") as files:
        files.alter_column("progress_at", server_default=None)
