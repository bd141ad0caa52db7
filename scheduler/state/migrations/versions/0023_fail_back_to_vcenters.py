"""Fail back to vCenters: what can be brought back follows from where the disks lie"""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("replicas", "returnable")
