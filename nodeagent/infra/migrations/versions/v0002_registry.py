"""The registry: cameras, their rules and history, algorithms, assignments, epochs, nodes, tokens and counters.

Written out, not taken from `infra.registry_tables`: that changes with each release, this step never does.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_MYSQL: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}

#: Name: table and columns.
_INDEXES = {
    "ix_camera_change": ("camera", ("change_no",)),
    "ix_camera_group": ("camera", ("group_path",)),
    "ix_camera_key": ("camera", ("key_id",)),
    "ix_camera_label_value": ("camera_label", ("name", "value", "camera_id")),
    "ix_assignment_open": ("assignment", ("ended_ns", "camera_id")),
    "ix_assignment_node": ("assignment", ("node_id", "ended_ns")),
}


def _name(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def _long() -> TypeEngine[str]:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4"), "mysql")


def upgrade() -> None:
    _cameras()
    _versions()
    _ownership()
    _access()
    for name, (table, columns) in _INDEXES.items():
        # MySQL has no CREATE INDEX IF NOT EXISTS; a killed run may have made some of them.
        if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
            op.create_index(name, table, list(columns))


def _table(name: str, *columns: sa.schema.SchemaItem) -> None:
    op.create_table(name, *columns, if_not_exists=True, **_MYSQL)


def _cameras() -> None:
    _table(
        "camera",
        sa.Column("camera_id", _name(63), primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("change_no", sa.BigInteger, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("spec", _long(), nullable=False),
        sa.Column("sealed", _long()),
        sa.Column("key_id", _name(16)),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("group_path", _name(200), nullable=False),
        sa.Column("labels", _long(), nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.Column("created_by", _name(128), nullable=False),
        sa.Column("created_ns", sa.BigInteger, nullable=False),
        sa.Column("changed_by", _name(128), nullable=False),
        sa.Column("changed_ns", sa.BigInteger, nullable=False),
    )
    _table(
        "camera_label",
        sa.Column("camera_id", _name(63), nullable=False),
        sa.Column("name", _name(63), nullable=False),
        sa.Column("value", _name(63), nullable=False),
        sa.PrimaryKeyConstraint("camera_id", "name"),
    )
    _table(
        "camera_history",
        sa.Column("camera_id", _name(63), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("what", sa.String(500), nullable=False),
        sa.Column("spec", _long(), nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("group_path", _name(200), nullable=False),
        sa.Column("labels", _long(), nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.Column("changed_by", _name(128), nullable=False),
        sa.Column("changed_ns", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("camera_id", "version"),
    )


def _versions() -> None:
    _table(
        "rule",
        sa.Column("camera_id", _name(63), nullable=False),
        sa.Column("rule_id", _name(63), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("spec", _long()),
        sa.Column("author", _name(128), nullable=False),
        sa.Column("created_ns", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("camera_id", "rule_id", "version"),
    )
    _table(
        "algorithm",
        sa.Column("name", _name(63), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("parameters", _long()),
        sa.Column("author", _name(128), nullable=False),
        sa.Column("created_ns", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", "version"),
    )


def _ownership() -> None:
    _table(
        "assignment",
        sa.Column("camera_id", _name(63), nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("node_id", _name(63), nullable=False),
        sa.Column("incarnation", _name(16), nullable=False),
        sa.Column("reason", sa.String(200), nullable=False),
        sa.Column("explanation", _long(), nullable=False),
        sa.Column("granted_ns", sa.BigInteger, nullable=False),
        sa.Column("ended_ns", sa.BigInteger),
        sa.Column("end_reason", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("camera_id", "epoch"),
    )
    _table(
        "camera_epoch",
        sa.Column("camera_id", _name(63), primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
    )
    _table(
        "node",
        sa.Column("node_id", _name(63), primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("incarnation", _name(16), nullable=False),
        sa.Column("first_seen_ns", sa.BigInteger, nullable=False),
        sa.Column("last_seen_ns", sa.BigInteger, nullable=False),
        sa.Column("drain_by", _name(128)),
        sa.Column("drain_ns", sa.BigInteger, nullable=False),
        sa.Column("drain_forced", sa.Boolean, nullable=False),
    )


def _access() -> None:
    _table(
        "token",
        sa.Column("token_id", _name(16), primary_key=True),
        sa.Column("name", _name(63), nullable=False),
        sa.Column("role", sa.String(16)),
        sa.Column("node_id", _name(63)),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("created_by", _name(128), nullable=False),
        sa.Column("created_ns", sa.BigInteger, nullable=False),
        sa.Column("last_used_ns", sa.BigInteger, nullable=False),
        sa.Column("revoked_ns", sa.BigInteger, nullable=False),
        sa.Column("revoked_by", _name(128), nullable=False),
    )
    _table(
        "counter",
        sa.Column("name", _name(63), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
