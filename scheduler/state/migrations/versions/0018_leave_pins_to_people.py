"""Leave pins to people: restore points that VMs run from stay without"""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_DROPS_COLUMNS = (3, 35)
"""The first SQLite that does; Red Hat Enterprise Linux 9 has an older one."""


def upgrade() -> None:
    key = ("repository", "vm_id", "point")
    points, restores = (sa.table(name, *map(sa.column, (*key, "pinned"))) for name in ("points", "vm_restores"))
    same = (points.c[name] == restores.c[name] for name in key)
    pinned_by_restores = sa.exists().where(restores.c.pinned.is_(sa.true()), *same)
    op.execute(points.update().where(pinned_by_restores).values(pinned=sa.false()))
    # In place, or not at all: a table that is made anew takes the rows with it that refer to the old one's. What is
    # left has a default.
    if op.get_bind().dialect.name != "sqlite" or sqlite3.sqlite_version_info >= _DROPS_COLUMNS:
        op.drop_column("vm_restores", "pinned")
