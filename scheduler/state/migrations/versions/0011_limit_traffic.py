"""Keep traffic rules, and where repositories stand"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "traffic_rules",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("limit", sa.String(length=32), nullable=False),
        sa.Column("window", sa.Text(), nullable=True),
        sa.Column("exempt", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_traffic_rules")),
    )
    op.add_column("repositories", sa.Column("host", sa.String(length=45), nullable=True))
