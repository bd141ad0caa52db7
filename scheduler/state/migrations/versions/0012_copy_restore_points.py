"""Keep what copy jobs copy, and what the copies of their runs are copies of"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("copy_from", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("copy_from", sa.Text(), nullable=True))
    op.add_column("vm_runs", sa.Column("copy_of", sa.Text(), nullable=True))
