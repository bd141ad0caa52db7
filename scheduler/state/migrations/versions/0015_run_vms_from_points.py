"""Run VMs from their restore points while their disks move to production"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("vm_restores", sa.Column("share", sa.String(length=63), nullable=True))
    op.add_column("vm_restores", sa.Column("served", sa.Text(), nullable=True))
    op.add_column("vm_restores", sa.Column("served_by", sa.String(length=63), nullable=True))
    op.add_column(
        "vm_restores", sa.Column("move_requested", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column("vm_restores", sa.Column("pinned", sa.Boolean(), nullable=False, server_default=sa.false()))
