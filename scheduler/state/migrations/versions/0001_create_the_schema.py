"""Create the schema"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "points",
        sa.Column("repository", sa.String(length=63), nullable=False),
        sa.Column("vm_id", sa.String(length=63), nullable=False),
        sa.Column("point", sa.String(length=63), nullable=False),
        sa.Column("vm_name", sa.String(length=255), nullable=False),
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("disks", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("repository", "vm_id", "point", name=op.f("pk_points")),
    )
    with op.batch_alter_table("points", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_points_vm_name_created_at"), ["vm_name", "created_at"], unique=False)

    op.create_table(
        "proxies",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("site", sa.String(length=63), nullable=True),
        sa.Column("max_concurrent_tasks", sa.BigInteger(), nullable=True),
        sa.Column("transport_mode", sa.String(length=32), nullable=False),
        sa.Column("datastores", sa.Text(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_proxies")),
    )
    op.create_table(
        "requests",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("repository", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("summary", sa.String(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
    )
    with op.batch_alter_table("requests", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_requests_state"), ["state"], unique=False)

    op.create_table(
        "restores",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("repository", sa.String(length=63), nullable=False),
        sa.Column("vm_id", sa.String(length=63), nullable=False),
        sa.Column("vm_name", sa.String(length=255), nullable=False),
        sa.Column("point", sa.String(length=63), nullable=False),
        sa.Column("disk_key", sa.String(length=63), nullable=False),
        sa.Column("proxy", sa.String(length=63), nullable=False),
        sa.Column("target_path", sa.String(), nullable=False),
        sa.Column("overwrite", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("report", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_restores")),
    )
    with op.batch_alter_table("restores", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_restores_state"), ["state"], unique=False)

    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("job", sa.String(length=63), nullable=False),
        sa.Column("trigger", sa.String(32), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("repository", sa.String(length=63), nullable=False),
        sa.Column("level", sa.String(32), nullable=False),
        sa.Column("transport_mode", sa.String(length=32), nullable=False),
        sa.Column("failover_to_network", sa.Boolean(), nullable=False),
        sa.Column("priority", sa.String(32), nullable=False),
        sa.Column("retry_count", sa.BigInteger(), nullable=False),
        sa.Column("retry_wait_seconds", sa.Double(), nullable=False),
        sa.Column("vms", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_runs_job_created_at"), ["job", "created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_runs_state"), ["state"], unique=False)

    op.create_table(
        "service",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service")),
    )
    op.create_table(
        "sites",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_sites")),
    )
    op.create_table(
        "vms",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("disks", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_vms")),
    )
    op.create_table(
        "datastores",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.ForeignKeyConstraint(
            ["site"], ["sites.name"], name=op.f("fk_datastores_site"), initially="DEFERRED", deferrable=True
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_datastores")),
    )
    op.create_table(
        "repositories",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("location", sa.String(), nullable=False),
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("credential", sa.String(length=63), nullable=True),
        sa.Column("proxies", sa.Text(), nullable=True),
        sa.Column("max_concurrent_tasks", sa.BigInteger(), nullable=True),
        sa.Column("repository_id", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["site"], ["sites.name"], name=op.f("fk_repositories_site"), initially="DEFERRED", deferrable=True
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_repositories")),
    )
    op.create_table(
        "vm_runs",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("run_id", sa.String(length=63), nullable=False),
        sa.Column("vm_id", sa.String(length=63), nullable=True),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("repository_run", sa.String(length=63), nullable=True),
        sa.Column("configuration", sa.Text(), nullable=False),
        sa.Column("cancelled", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("warning", sa.String(), nullable=True),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.id"],
            name=op.f("fk_vm_runs_run_id"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vm_runs")),
    )
    with op.batch_alter_table("vm_runs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_vm_runs_run_id"), ["run_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_vm_runs_state"), ["state"], unique=False)

    op.create_table(
        "disk_tasks",
        sa.Column("id", sa.String(length=100), nullable=False),
        sa.Column("vm_run_id", sa.String(length=80), nullable=False),
        sa.Column("run_id", sa.String(length=63), nullable=False),
        sa.Column("disk_key", sa.String(length=63), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("tries", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("retry_at", sa.Double(), nullable=True),
        sa.Column("proxy", sa.String(length=63), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("checkpoint", sa.String(), nullable=True),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.id"],
            name=op.f("fk_disk_tasks_run_id"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(
            ["vm_run_id"],
            ["vm_runs.id"],
            name=op.f("fk_disk_tasks_vm_run_id"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_disk_tasks")),
        sa.UniqueConstraint("vm_run_id", "disk_key", name=op.f("uq_disk_tasks_vm_run_id_disk_key")),
    )
    with op.batch_alter_table("disk_tasks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_disk_tasks_run_id"), ["run_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_disk_tasks_state_retry_at"), ["state", "retry_at"], unique=False)

    op.create_table(
        "jobs",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("vms", sa.Text(), nullable=False),
        sa.Column("repository", sa.String(length=63), nullable=False),
        sa.Column("level", sa.String(32), nullable=False),
        sa.Column("transport_mode", sa.String(length=32), nullable=False),
        sa.Column("failover_to_network", sa.Boolean(), nullable=False),
        sa.Column("priority", sa.String(32), nullable=False),
        sa.Column("cron", sa.String(), nullable=True),
        sa.Column("timezone", sa.String(), nullable=False),
        sa.Column("retry_count", sa.BigInteger(), nullable=False),
        sa.Column("retry_wait_seconds", sa.Double(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("scheduled_after", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["repository"],
            ["repositories.name"],
            name=op.f("fk_jobs_repository"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_jobs")),
    )
    op.create_table(
        "ledger_tasks",
        sa.Column("id", sa.String(length=120), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("cancelling", sa.Boolean(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("checkpoint", sa.String(), nullable=True),
        sa.Column("pinned_proxy", sa.String(length=63), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("retry_at", sa.Double(), nullable=True),
        sa.Column("tries", sa.BigInteger(), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("disk_task_id", sa.String(length=100), nullable=True),
        sa.Column("vm_run_id", sa.String(length=80), nullable=True),
        sa.Column("run_id", sa.String(length=63), nullable=True),
        sa.Column("restore_id", sa.String(length=63), nullable=True),
        sa.Column("request_id", sa.String(length=63), nullable=True),
        sa.ForeignKeyConstraint(
            ["disk_task_id"],
            ["disk_tasks.id"],
            name=op.f("fk_ledger_tasks_disk_task_id"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["requests.id"],
            name=op.f("fk_ledger_tasks_request_id"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(
            ["restore_id"],
            ["restores.id"],
            name=op.f("fk_ledger_tasks_restore_id"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.id"],
            name=op.f("fk_ledger_tasks_run_id"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(
            ["vm_run_id"],
            ["vm_runs.id"],
            name=op.f("fk_ledger_tasks_vm_run_id"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_tasks")),
    )
    with op.batch_alter_table("ledger_tasks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_ledger_tasks_disk_task_id"), ["disk_task_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_ledger_tasks_request_id"), ["request_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_ledger_tasks_restore_id"), ["restore_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_ledger_tasks_run_id"), ["run_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_ledger_tasks_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_ledger_tasks_vm_run_id"), ["vm_run_id"], unique=False)
