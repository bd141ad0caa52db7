"""Prove repositories piece by piece, and keep when each restore point was proven"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("repositories", sa.Column("prove_cron", sa.String(), nullable=False, server_default="0 12 * * *"))
    op.add_column("repositories", sa.Column("prove_timezone", sa.String(), nullable=False, server_default="UTC"))
    op.add_column("repositories", sa.Column("prove_days", sa.BigInteger(), nullable=False, server_default="30"))
    op.add_column("repositories", sa.Column("prove_hours", sa.BigInteger(), nullable=False, server_default="6"))
    op.add_column("repositories", sa.Column("prove_mib_per_s", sa.BigInteger(), nullable=True))
    op.add_column(
        "repositories", sa.Column("prove_samples", sa.Boolean(), nullable=False, server_default=sa.true())
    )
    op.add_column("repositories", sa.Column("prove_at", sa.Double(), nullable=True))
    op.add_column("repositories", sa.Column("linked", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("points", sa.Column("proven_at", sa.Double(), nullable=True))
    op.add_column("points", sa.Column("sampled_at", sa.Double(), nullable=True))
    op.add_column("points", sa.Column("damaged", sa.Boolean(), nullable=False, server_default=sa.false()))
