"""Keep how jobs share the fleet: windows, proxies that they may or should use, limits of datastores"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dispatch_settings",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("patience_seconds", sa.Double(), nullable=False),
        sa.Column("window", sa.Text(), nullable=True),
        sa.Column("latency_stop_ms", sa.Double(), nullable=False),
        sa.Column("latency_throttle_ms", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_dispatch_settings")),
    )
    op.add_column("jobs", sa.Column("window", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("proxies", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("preferred_proxies", sa.Text(), nullable=True))
    op.add_column("repositories", sa.Column("preferred_proxies", sa.Text(), nullable=True))
    op.add_column("datastores", sa.Column("max_concurrent_tasks", sa.BigInteger(), nullable=True))
    op.add_column("datastores", sa.Column("latency_stop_ms", sa.Double(), nullable=True))
    op.add_column("datastores", sa.Column("latency_throttle_ms", sa.Double(), nullable=True))
    op.add_column("datastores", sa.Column("latency_ms", sa.Double(), nullable=True))
    op.add_column("datastores", sa.Column("latency_at", sa.Double(), nullable=True))
