"""Alarms of rules in shadow mode, which nobody is told of.

Agents of the release before go on writing beside it: the column has a default.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A killed run may have made it.
    if "shadow" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("alarm")}:
        op.add_column("alarm", sa.Column("shadow", sa.Boolean, nullable=False, server_default="0"))
