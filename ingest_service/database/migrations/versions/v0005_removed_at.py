"""A deployment knows when its target said, to DeleteModel, that it has not got the model."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deployments", sa.Column("removed_at", sa.BigInteger(), nullable=True))
