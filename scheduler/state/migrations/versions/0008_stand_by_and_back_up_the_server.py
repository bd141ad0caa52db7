"""Keep which schedulers lead and stand by, and how the server's own backup went"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "schedulers",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=True),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedulers")),
    )
    op.add_column("service", sa.Column("backup_tried_at", sa.Double(), nullable=True))
    op.add_column("service", sa.Column("backed_up_at", sa.Double(), nullable=True))
    op.add_column("service", sa.Column("backup_failure", sa.String(), nullable=True))
