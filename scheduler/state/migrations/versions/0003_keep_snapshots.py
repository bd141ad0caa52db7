"""Keep steps at vCenters, the journal of snapshots, and what changes are relative to"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "snapshots",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("vcenter", sa.String(length=63), nullable=False),
        sa.Column("vm_ref", sa.String(length=255), nullable=False),
        sa.Column("vm_id", sa.String(length=63), nullable=False),
        sa.Column("vm_name", sa.String(length=255), nullable=False),
        sa.Column("vm_run_id", sa.String(length=80), nullable=True),
        sa.Column("datastores", sa.Text(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("ref", sa.String(length=255), nullable=True),
        sa.Column("quiesced", sa.Boolean(), nullable=True),
        sa.Column("tries", sa.BigInteger(), nullable=False),
        sa.Column("last_try_at", sa.Double(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("warning", sa.String(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("made_at", sa.Double(), nullable=True),
        sa.Column("removed_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshots")),
    )
    with op.batch_alter_table("snapshots", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_snapshots_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_snapshots_vm_run_id"), ["vm_run_id"], unique=False)

    op.create_table(
        "vcenter_steps",
        sa.Column("id", sa.String(length=120), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("vcenter", sa.String(length=63), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("vm_ref", sa.String(length=255), nullable=True),
        sa.Column("subject", sa.String(length=120), nullable=True),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("cancelling", sa.Boolean(), nullable=False),
        sa.Column("tries", sa.BigInteger(), nullable=False),
        sa.Column("retry_at", sa.Double(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vcenter_steps")),
    )
    with op.batch_alter_table("vcenter_steps", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_vcenter_steps_state_retry_at"), ["state", "retry_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_vcenter_steps_subject"), ["subject"], unique=False)

    op.create_table(
        "change_bases",
        sa.Column("repository", sa.String(length=63), nullable=False),
        sa.Column("vm_id", sa.String(length=63), nullable=False),
        sa.Column("point", sa.String(length=63), nullable=False),
        sa.Column("disk_key", sa.String(length=63), nullable=False),
        sa.Column("mark", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository", "vm_id", "point"],
            ["points.repository", "points.vm_id", "points.point"],
            name=op.f("fk_change_bases_repository_vm_id_point"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("repository", "vm_id", "point", "disk_key", name=op.f("pk_change_bases")),
    )
    with op.batch_alter_table("disk_tasks", schema=None) as batch_op:
        batch_op.add_column(sa.Column("changed_areas", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("parent", sa.String(length=63), nullable=True))
        batch_op.add_column(sa.Column("full_read_reason", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("tracking", sa.Text(), nullable=True))

    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("scanned_after", sa.Double(), nullable=True))

    with op.batch_alter_table("service", schema=None) as batch_op:
        batch_op.add_column(sa.Column("installation", sa.String(length=63), nullable=True))

    with op.batch_alter_table("vm_runs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("place", sa.Text(), nullable=True))
