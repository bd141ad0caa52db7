"""Keep where traffic has to be encrypted, which takes no limit, and over which networks it goes"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("traffic_rules") as batch_op:
        batch_op.alter_column("limit", existing_type=sa.String(length=32), nullable=True)
        batch_op.add_column(sa.Column("encrypt", sa.Boolean(), nullable=True))
    op.add_column("dispatch_settings", sa.Column("preferred_networks", sa.Text(), nullable=True))
