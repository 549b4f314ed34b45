"""Alarms: slots, alarms, their keys, and push attempts.

Written out, not taken from `infra.tables`: that changes with each release, this step never does.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MYSQL: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}

#: Name: table and columns.
_INDEXES = {
    "ix_alarm_slot_time": ("alarm", ("slot_id", "started_ns")),
    "ix_alarm_camera_time": ("alarm", ("camera_id", "confirmed_ns")),
    "ix_alarm_time": ("alarm", ("confirmed_ns",)),
    "ix_alarm_state": ("alarm", ("state",)),
    "ix_alarm_key_alarm_id": ("alarm_key", ("alarm_id",)),
    "ix_push_attempt_alarm": ("push_attempt", ("alarm_id", "target")),
}


def _name(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def _id() -> TypeEngine[int]:
    return sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")


def _long() -> TypeEngine[str]:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4"), "mysql")


def upgrade() -> None:
    _slots()
    _alarms()
    _keys_and_pushes()
    for name, (table, columns) in _INDEXES.items():
        # MySQL has no CREATE INDEX IF NOT EXISTS; a killed run may have made some of them.
        if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
            op.create_index(name, table, list(columns))


def _slots() -> None:
    op.create_table(
        "alarm_slot",
        sa.Column("id", _id(), primary_key=True, autoincrement=True),
        sa.Column("camera_id", _name(63), nullable=False),
        sa.Column("rule_id", _name(63), nullable=False),
        sa.Column("zone", _name(64), nullable=False),
        sa.UniqueConstraint("camera_id", "rule_id", "zone", name="uq_alarm_slot"),
        if_not_exists=True,
        **_MYSQL,
    )


def _alarms() -> None:
    op.create_table(
        "alarm",
        sa.Column("id", _id(), primary_key=True, autoincrement=True),
        sa.Column("slot_id", sa.BigInteger, sa.ForeignKey("alarm_slot.id"), nullable=False),
        sa.Column("dedup_key", _name(32), nullable=False, unique=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("camera_id", _name(63), nullable=False),
        sa.Column("rule_id", _name(63), nullable=False),
        sa.Column("rule_kind", sa.String(64), nullable=False),
        sa.Column("zone", _name(64), nullable=False),
        sa.Column("node_id", _name(63), nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("started_ns", sa.BigInteger, nullable=False),
        sa.Column("confirmed_ns", sa.BigInteger, nullable=False),
        sa.Column("last_ns", sa.BigInteger, nullable=False),
        sa.Column("ended_ns", sa.BigInteger),
        sa.Column("subjects", sa.Integer, nullable=False),
        sa.Column("sample_ns", sa.BigInteger, nullable=False),
        sa.Column("evidence", _long(), nullable=False),
        sa.Column("timings", _long(), nullable=False),
        sa.Column("replay_from_ns", sa.BigInteger, nullable=False),
        sa.Column("replay_to_ns", sa.BigInteger, nullable=False),
        sa.Column("messages", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("state_reason", sa.String(500), nullable=False),
        sa.Column("state_times", sa.JSON, nullable=False),
        sa.Column("starts", sa.Integer, nullable=False),
        sa.Column("claimed_by", _name(128)),
        sa.Column("claimed_until_ns", sa.BigInteger, nullable=False),
        sa.Column("replay_path", sa.String(1000)),
        sa.Column("replay_sha256", sa.String(64)),
        sa.Column("replay_start_ns", sa.BigInteger),
        sa.Column("replay_length_ns", sa.BigInteger),
        sa.Column("partial", sa.Boolean, nullable=False),
        sa.Column("partial_reason", sa.String(500), nullable=False),
        sa.Column("missing_ns", sa.BigInteger, nullable=False),
        sa.Column("snapshot_path", sa.String(1000)),
        sa.Column("snapshot_sha256", sa.String(64)),
        sa.Column("push_body", _long()),
        if_not_exists=True,
        **_MYSQL,
    )


def _keys_and_pushes() -> None:
    op.create_table(
        "alarm_key",
        sa.Column("dedup_key", _name(32), primary_key=True),
        sa.Column("alarm_id", sa.BigInteger, sa.ForeignKey("alarm.id"), nullable=False),
        if_not_exists=True,
        **_MYSQL,
    )
    op.create_table(
        "push_attempt",
        sa.Column("id", _id(), primary_key=True, autoincrement=True),
        sa.Column("alarm_id", sa.BigInteger, sa.ForeignKey("alarm.id"), nullable=False),
        sa.Column("target", _name(63), nullable=False),
        sa.Column("started_ns", sa.BigInteger, nullable=False),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("accepted", sa.Boolean, nullable=False),
        sa.Column("error", sa.String(300), nullable=False),
        if_not_exists=True,
        **_MYSQL,
    )
