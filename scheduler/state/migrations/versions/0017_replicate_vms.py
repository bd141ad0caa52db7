"""Replicate VMs: replicas, their restore points, and what is done with them"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "replicas",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("job", sa.String(length=63), nullable=False),
        sa.Column("vm_id", sa.String(length=63), nullable=False),
        sa.Column("vm_name", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("mapped", sa.Boolean(), nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=True),
        sa.Column("disks", sa.Text(), nullable=False),
        sa.Column("original_place", sa.Text(), nullable=False),
        sa.Column("returnable", sa.Boolean(), nullable=False),
        sa.Column("original_disks", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("point", sa.String(length=63), nullable=True),
        sa.Column("before", sa.String(length=63), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replicas")),
        sa.UniqueConstraint("job", "vm_id", name=op.f("uq_replicas_job_vm_id")),
    )
    op.create_table(
        "replica_points",
        sa.Column("replica_id", sa.String(length=63), nullable=False),
        sa.Column("point", sa.String(length=63), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("reflinked", sa.Boolean(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        _owner("replica_points", "replica_id", "replicas"),
        sa.PrimaryKeyConstraint("replica_id", "point", name=op.f("pk_replica_points")),
    )
    op.create_table(
        "replica_operations",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("replica_id", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("point", sa.String(length=63), nullable=True),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("undoing", sa.Boolean(), nullable=False),
        sa.Column("run_id", sa.String(length=63), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        _owner("replica_operations", "replica_id", "replicas"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replica_operations")),
    )
    with op.batch_alter_table("replica_operations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_replica_operations_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_replica_operations_replica_id"), ["replica_id"], unique=False)
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("replica", sa.Text(), nullable=True))
        batch_op.alter_column("repository", existing_type=sa.String(length=63), nullable=True)
    op.add_column("runs", sa.Column("replica", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("failback_of", sa.String(length=63), nullable=True))
    op.add_column("vm_runs", sa.Column("replica_id", sa.String(length=63), nullable=True))
    op.add_column("disk_tasks", sa.Column("target", sa.Text(), nullable=True))
    op.add_column("disk_tasks", sa.Column("target_proxy", sa.String(length=63), nullable=True))
    with op.batch_alter_table("ledger_tasks", schema=None) as batch_op:
        batch_op.add_column(sa.Column("replica_id", sa.String(length=63), nullable=True))
        batch_op.add_column(sa.Column("operation_id", sa.String(length=63), nullable=True))
        batch_op.add_column(sa.Column("partner_id", sa.String(length=120), nullable=True))
        batch_op.create_index(batch_op.f("ix_ledger_tasks_replica_id"), ["replica_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_ledger_tasks_operation_id"), ["operation_id"], unique=False)
        for column, table in (("replica_id", "replicas"), ("operation_id", "replica_operations")):
            batch_op.create_foreign_key(
                batch_op.f(f"fk_ledger_tasks_{column}"),
                table,
                [column],
                ["id"],
                ondelete="CASCADE",
                initially="DEFERRED",
                deferrable=True,
            )


def _owner(table: str, column: str, owner: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column],
        [f"{owner}.id"],
        name=op.f(f"fk_{table}_{column}"),
        ondelete="CASCADE",
        initially="DEFERRED",
        deferrable=True,
    )
