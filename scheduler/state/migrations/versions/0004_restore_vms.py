"""Restore VMs to vCenters"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "vm_restores",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("repository", sa.String(length=63), nullable=False),
        sa.Column("vm_id", sa.String(length=63), nullable=False),
        sa.Column("vm_name", sa.String(length=255), nullable=False),
        sa.Column("point", sa.String(length=63), nullable=False),
        sa.Column("vcenter", sa.String(length=63), nullable=False),
        sa.Column("target_name", sa.String(length=255), nullable=False),
        sa.Column("wishes", sa.Text(), nullable=False),
        sa.Column("instance_uuid", sa.String(length=63), nullable=False),
        sa.Column("same_machine", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("cancelled", sa.Boolean(), nullable=False),
        sa.Column("place", sa.Text(), nullable=True),
        sa.Column("vm_ref", sa.String(length=255), nullable=True),
        sa.Column("tracks_changes", sa.Boolean(), nullable=False),
        sa.Column("touched", sa.Boolean(), nullable=False),
        sa.Column("written", sa.Boolean(), nullable=False),
        sa.Column("warnings", sa.Text(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vm_restores")),
    )
    with op.batch_alter_table("vm_restores", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_vm_restores_created_at"), ["created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_vm_restores_state"), ["state"], unique=False)

    op.create_table(
        "restored_disks",
        sa.Column("id", sa.String(length=100), nullable=False),
        sa.Column("restore_id", sa.String(length=63), nullable=False),
        sa.Column("disk_key", sa.String(length=63), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("blank", sa.Boolean(), nullable=False),
        sa.Column("changed_areas", sa.Text(), nullable=True),
        sa.Column("full_write_reason", sa.String(), nullable=True),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("tries", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("retry_at", sa.Double(), nullable=True),
        sa.Column("proxy", sa.String(length=63), nullable=True),
        sa.Column("report", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["restore_id"],
            ["vm_restores.id"],
            name=op.f("fk_restored_disks_restore_id"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_restored_disks")),
        sa.UniqueConstraint("restore_id", "disk_key", name=op.f("uq_restored_disks_restore_id_disk_key")),
    )
    with op.batch_alter_table("restored_disks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_restored_disks_state_retry_at"), ["state", "retry_at"], unique=False)

    with op.batch_alter_table("ledger_tasks", schema=None) as batch_op:
        batch_op.add_column(sa.Column("vm_restore_id", sa.String(length=63), nullable=True))
        batch_op.create_index(batch_op.f("ix_ledger_tasks_vm_restore_id"), ["vm_restore_id"], unique=False)
        batch_op.create_foreign_key(
            batch_op.f("fk_ledger_tasks_vm_restore_id"),
            "vm_restores",
            ["vm_restore_id"],
            ["id"],
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        )
