"""Alarms that nobody is told of because there were too many, and the storms that they are of.

Agents of the release before go on writing beside it: the columns have defaults.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.types import TypeEngine

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _name(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def upgrade() -> None:
    # A killed run may have made any part of it.
    there = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("alarm")}
    for name, length in (("untold", 16), ("summary", 500)):
        if name not in there:
            op.add_column("alarm", sa.Column(name, sa.String(length), nullable=False, server_default=""))
    op.create_table(
        "alarm_storm",
        sa.Column("id", sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("camera_id", _name(63), nullable=False),
        sa.Column("rule_id", _name(63), nullable=False),
        sa.Column("first_key", _name(32), nullable=False, unique=True),
        sa.Column("last_id", sa.BigInteger, sa.ForeignKey("alarm.id"), nullable=False),
        sa.Column("began_ns", sa.BigInteger, nullable=False),
        sa.Column("last_ns", sa.BigInteger, nullable=False),
        sa.Column("held", sa.Integer, nullable=False),
        sa.Column("touched_ns", sa.BigInteger, nullable=False),
        sa.Column("over_ns", sa.BigInteger, nullable=False),
        if_not_exists=True,
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    if "ix_alarm_storm_open" not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("alarm_storm")}:
        op.create_index("ix_alarm_storm_open", "alarm_storm", ["over_ns", "camera_id", "rule_id"])
