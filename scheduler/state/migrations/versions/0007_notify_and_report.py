"""Keep who is notified and what is still to be told, and what reports show: attempts, waiting, free space"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notifications",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("when", sa.String(32), nullable=False),
        sa.Column("jobs", sa.Text(), nullable=False),
        sa.Column("webhook", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_notifications")),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("notification", sa.String(length=63), nullable=False),
        sa.Column("run_id", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=False),
        sa.Column("tries", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["notification"],
            ["notifications.name"],
            name=op.f("fk_deliveries_notification"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.id"],
            name=op.f("fk_deliveries_run_id"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
    )
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_deliveries_state_next_at"), ["state", "next_at"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_deliveries_notification_created_at"), ["notification", "created_at"], unique=False
        )
    # Of what ended before, nobody is told.
    op.add_column("runs", sa.Column("notified", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("disk_tasks", sa.Column("queued_at", sa.Double(), nullable=True))
    op.add_column("disk_tasks", sa.Column("history", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("repositories", sa.Column("size_bytes", sa.BigInteger(), nullable=True))
    op.add_column("repositories", sa.Column("free_bytes", sa.BigInteger(), nullable=True))
    op.add_column("repositories", sa.Column("measured_at", sa.Double(), nullable=True))
