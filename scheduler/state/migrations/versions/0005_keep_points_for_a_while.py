"""Keep restore points for as long as jobs say, and collect what none needs"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("retention", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("repositories", sa.Column("collect_cron", sa.String(), nullable=True))
    op.add_column("repositories", sa.Column("collect_timezone", sa.String(), nullable=False, server_default="UTC"))
    op.add_column("repositories", sa.Column("collect_mib_per_s", sa.BigInteger(), nullable=True))
    op.add_column("repositories", sa.Column("collect_at", sa.Double(), nullable=True))
    op.add_column("points", sa.Column("pinned", sa.Boolean(), nullable=False, server_default=sa.false()))
    # What ran before is left as it is: the next run of its job is the first to give points up.
    op.add_column("runs", sa.Column("retention_applied", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("requests", sa.Column("vm_id", sa.String(length=63), nullable=True))
    op.add_column("requests", sa.Column("vm_name", sa.String(length=255), nullable=True))
    op.add_column("requests", sa.Column("point", sa.String(length=63), nullable=True))
    op.add_column("requests", sa.Column("reason", sa.String(), nullable=True))
