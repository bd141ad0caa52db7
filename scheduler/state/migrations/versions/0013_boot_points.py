"""Start VMs from restore points, and keep how that ended"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("requests", sa.Column("boot", sa.Text(), nullable=True))
    op.add_column("points", sa.Column("booted_at", sa.Double(), nullable=True))
    op.add_column("points", sa.Column("boot_problem", sa.String(), nullable=True))
