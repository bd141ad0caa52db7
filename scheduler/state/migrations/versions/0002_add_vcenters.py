"""Add vCenters, the catalogue of their VMs, and what jobs select by it"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "vcenters",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("port", sa.BigInteger(), nullable=False),
        sa.Column("user", sa.String(length=255), nullable=False),
        sa.Column("credential", sa.String(length=63), nullable=False),
        sa.Column("thumbprint", sa.String(length=95), nullable=True),
        sa.Column("ca_file", sa.String(), nullable=True),
        sa.Column("max_sessions", sa.BigInteger(), nullable=False),
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("scanned_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["site"], ["sites.name"], name=op.f("fk_vcenters_site"), initially="DEFERRED", deferrable=True
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_vcenters")),
    )
    op.create_table(
        "vcenter_vms",
        sa.Column("vcenter", sa.String(length=63), nullable=False),
        sa.Column("ref", sa.String(length=255), nullable=False),
        sa.Column("vm_id", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("datacenter", sa.String(), nullable=True),
        sa.Column("folder", sa.String(), nullable=False),
        sa.Column("cluster", sa.String(), nullable=True),
        sa.Column("pool", sa.String(), nullable=True),
        sa.Column("host", sa.String(), nullable=True),
        sa.Column("datastores", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("template", sa.Boolean(), nullable=False),
        sa.Column("powered_on", sa.Boolean(), nullable=False),
        sa.Column("tools_running", sa.Boolean(), nullable=False),
        sa.Column("windows", sa.Boolean(), nullable=False),
        sa.Column("encrypted", sa.Boolean(), nullable=False),
        sa.Column("tracks_changes", sa.Boolean(), nullable=False),
        sa.Column("can_track_changes", sa.Boolean(), nullable=False),
        sa.Column("snapshots", sa.BigInteger(), nullable=False),
        sa.Column("configuration_path", sa.String(), nullable=True),
        sa.Column("disks", sa.Text(), nullable=False),
        sa.Column("problem", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["vcenter"],
            ["vcenters.name"],
            name=op.f("fk_vcenter_vms_vcenter"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("vcenter", "ref", name=op.f("pk_vcenter_vms")),
    )
    with op.batch_alter_table("vcenter_vms", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_vcenter_vms_vm_id"), ["vm_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_vcenter_vms_name"), ["name"], unique=False)

    op.create_table(
        "vcenter_scans",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("vcenter", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("summary", sa.String(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["vcenter"],
            ["vcenters.name"],
            name=op.f("fk_vcenter_scans_vcenter"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vcenter_scans")),
    )
    with op.batch_alter_table("vcenter_scans", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_vcenter_scans_state"), ["state"], unique=False)

    with op.batch_alter_table("datastores", schema=None) as batch_op:
        batch_op.add_column(sa.Column("vcenter", sa.String(length=63), nullable=True))
        batch_op.add_column(sa.Column("vsphere_name", sa.String(length=255), nullable=True))
        batch_op.create_foreign_key(
            batch_op.f("fk_datastores_vcenter"),
            "vcenters",
            ["vcenter"],
            ["name"],
            initially="DEFERRED",
            deferrable=True,
        )
    # What was there before selects by names alone. Added without remaking the tables, which others refer to.
    for table in ("jobs", "runs"):
        op.add_column(table, sa.Column("criteria", sa.Text(), nullable=False, server_default="{}"))
        op.add_column(table, sa.Column("quiesce", sa.String(32), nullable=False, server_default="prefer"))
