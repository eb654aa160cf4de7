"""Blobs keep what their headers say and which rules accepted them; models can be deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ingests", sa.Column("deleted_at", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("files") as files:
        files.add_column(sa.Column("inspected", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("blobs") as blobs:
        # What is there was accepted by its first bytes alone: no version of the rules has seen it.
        blobs.add_column(sa.Column("rules_version", sa.Integer(), nullable=False, server_default="0"))
        blobs.add_column(sa.Column("facts", sa.JSON(), nullable=True))
        blobs.add_column(sa.Column("verified_at", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("blobs") as blobs:
        blobs.alter_column("rules_version", server_default=None)
    with op.batch_alter_table("files") as files:
        files.alter_column("inspected", server_default=None)
