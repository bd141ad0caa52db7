"""Replicate to vCenters: what a replica's machine is made of"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("replicas", sa.Column("machine", sa.Text(), nullable=True))
