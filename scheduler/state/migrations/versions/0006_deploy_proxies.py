"""Remember the machines that proxies are put on, and what was put there"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("proxies", sa.Column("description", sa.String(), nullable=False, server_default=""))
    op.add_column("proxies", sa.Column("server", sa.Text(), nullable=True))
    op.create_table(
        "proxy_deployments",
        sa.Column("name", sa.String(length=63), primary_key=True),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("problem", sa.String(), nullable=False),
        sa.Column("release", sa.String(), nullable=True),
        sa.Column("system", sa.String(), nullable=False),
        sa.Column("host_key", sa.String(), nullable=False),
        sa.Column("kept_running_by", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.Column("enable_again", sa.Boolean(), nullable=False),
    )
