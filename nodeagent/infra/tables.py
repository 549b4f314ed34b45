"""Tables of the database, as SQLAlchemy Core sees them.  `migrations/` makes them; a test keeps the two in step.

Times are UTC nanoseconds in BIGINT.  Names compare byte by byte on MySQL too: its default collation would take `Gate`
and `gate` for one camera.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.types import TypeEngine

metadata = MetaData()


def name_type(length: int) -> TypeEngine[str]:
    """A text of at most `length` characters that compares byte by byte."""
    return String(length).with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def id_type() -> TypeEngine[int]:
    """A growing row number; SQLite counts up by itself only in a column of type INTEGER."""
    return BigInteger().with_variant(sqlite.INTEGER(), "sqlite")


def long_text() -> TypeEngine[str]:
    """Text of up to 16 MB: MySQL's TEXT ends at 64 KB."""
    return Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4"), "mysql")


#: One row per (camera, rule, zone), and one with an empty zone per (camera, rule).  Whoever writes alarms of a slot
#: locks its row first, and before that the one of its rule.
alarm_slot = Table(
    "alarm_slot",
    metadata,
    Column("id", id_type(), primary_key=True, autoincrement=True),
    Column("camera_id", name_type(63), nullable=False),
    Column("rule_id", name_type(63), nullable=False),
    Column("zone", name_type(64), nullable=False),
    UniqueConstraint("camera_id", "rule_id", "zone", name="uq_alarm_slot"),
    mysql_charset="utf8mb4",
    mysql_engine="InnoDB",
)

#: One row per alarm: what is known of the episode, then how far its processing has come.
alarm = Table(
    "alarm",
    metadata,
    Column("id", id_type(), primary_key=True, autoincrement=True),
    Column("slot_id", BigInteger, ForeignKey("alarm_slot.id"), nullable=False),
    #: Key of the first message; never changes; it is the Idempotency-Key of every push.
    Column("dedup_key", name_type(32), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("camera_id", name_type(63), nullable=False),
    Column("rule_id", name_type(63), nullable=False),
    Column("rule_kind", String(64), nullable=False),
    Column("zone", name_type(64), nullable=False),
    Column("node_id", name_type(63), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("severity", String(16), nullable=False),
    #: Of a rule in shadow mode: nobody is told.  The default is for agents of the release before.
    Column("shadow", Boolean, nullable=False, server_default="0"),
    #: Why nobody is told although the rule counts: `storm`; empty: somebody is.  Default: as above.
    Column("untold", String(16), nullable=False, server_default=""),
    #: Of a summary, what it tells; empty: it is an alarm.  Default: as above.
    Column("summary", String(500), nullable=False, server_default=""),
    Column("started_ns", BigInteger, nullable=False),
    Column("confirmed_ns", BigInteger, nullable=False),
    #: Until this capture time the episode is known to have lasted.
    Column("last_ns", BigInteger, nullable=False),
    Column("ended_ns", BigInteger),
    Column("subjects", Integer, nullable=False),
    Column("sample_ns", BigInteger, nullable=False),
    #: JSON of `contract.alarm.Evidence`, as the confirming message had it.
    Column("evidence", long_text(), nullable=False),
    #: JSON object, wall clock by name of the step, as the confirming message had it.
    Column("timings", long_text(), nullable=False),
    Column("replay_from_ns", BigInteger, nullable=False),
    Column("replay_to_ns", BigInteger, nullable=False),
    #: Messages that were merged into this row, redeliveries included.
    Column("messages", Integer, nullable=False),
    # How far it has come.
    Column("state", String(16), nullable=False),
    Column("state_reason", String(500), nullable=False),
    #: Wall clock by name of the state, when it was entered.
    Column("state_times", JSON, nullable=False),
    #: Times that cutting or pushing was started without coming to an orderly end since.
    Column("starts", Integer, nullable=False),
    Column("claimed_by", name_type(128)),
    #: Wall clock until which the claim holds; without a claim, when somebody had the alarm in hand last.
    Column("claimed_until_ns", BigInteger, nullable=False),
    # What came of it.
    Column("replay_path", String(1000)),
    Column("replay_sha256", String(64)),
    #: Capture time of the replay's first frame.
    Column("replay_start_ns", BigInteger),
    Column("replay_length_ns", BigInteger),
    Column("partial", Boolean, nullable=False),
    Column("partial_reason", String(500), nullable=False),
    Column("missing_ns", BigInteger, nullable=False),
    Column("snapshot_path", String(1000)),
    Column("snapshot_sha256", String(64)),
    #: The JSON that targets get, made once: every resend is the same bytes.
    Column("push_body", long_text()),
    Index("ix_alarm_slot_time", "slot_id", "started_ns"),
    Index("ix_alarm_camera_time", "camera_id", "confirmed_ns"),
    Index("ix_alarm_time", "confirmed_ns"),
    Index("ix_alarm_state", "state"),
    mysql_charset="utf8mb4",
    mysql_engine="InnoDB",
)

#: Every key that was merged into an alarm, its own included: a redelivered message finds its row by it.
alarm_key = Table(
    "alarm_key",
    metadata,
    Column("dedup_key", name_type(32), primary_key=True),
    Column("alarm_id", BigInteger, ForeignKey("alarm.id"), nullable=False, index=True),
    mysql_charset="utf8mb4",
    mysql_engine="InnoDB",
)

#: One row per storm of a rule on a camera: more alarms within an hour than its rule lets through.
alarm_storm = Table(
    "alarm_storm",
    metadata,
    Column("id", id_type(), primary_key=True, autoincrement=True),
    Column("camera_id", name_type(63), nullable=False),
    Column("rule_id", name_type(63), nullable=False),
    #: Key of the first alarm that was held; the keys of its summaries are made of it.
    Column("first_key", name_type(32), nullable=False, unique=True),
    #: The alarm that was held last, by capture time.
    Column("last_id", BigInteger, ForeignKey("alarm.id"), nullable=False),
    #: Capture times at which the first and the last alarm that were held were confirmed.
    Column("began_ns", BigInteger, nullable=False),
    Column("last_ns", BigInteger, nullable=False),
    #: Alarms that were held.
    Column("held", Integer, nullable=False),
    #: Wall clock at which one was recorded last.
    Column("touched_ns", BigInteger, nullable=False),
    #: Wall clock at which its end was told; 0: it goes on.
    Column("over_ns", BigInteger, nullable=False),
    Index("ix_alarm_storm_open", "over_ns", "camera_id", "rule_id"),
    mysql_charset="utf8mb4",
    mysql_engine="InnoDB",
)

#: One row per request sent to a target; a target with an accepted one is not asked again.
push_attempt = Table(
    "push_attempt",
    metadata,
    Column("id", id_type(), primary_key=True, autoincrement=True),
    Column("alarm_id", BigInteger, ForeignKey("alarm.id"), nullable=False),
    Column("target", name_type(63), nullable=False),
    Column("started_ns", BigInteger, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    #: HTTP status; none when no answer came.
    Column("status", Integer),
    Column("accepted", Boolean, nullable=False),
    Column("error", String(300), nullable=False),
    Index("ix_push_attempt_alarm", "alarm_id", "target"),
    mysql_charset="utf8mb4",
    mysql_engine="InnoDB",
)
