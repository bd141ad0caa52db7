"""Let an instant restore be ended whose proxy or host is gone"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("vm_restores", sa.Column("given_up", sa.Boolean(), nullable=False, server_default=sa.false()))
