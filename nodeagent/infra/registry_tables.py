"""Tables of the registry, beside those of the agents in the same database and with the same rules (`infra.tables`).

Documents are JSON text.  No row holds a stream's password in clear: URLs stand redacted in `spec`, and whole, but
encrypted, in `sealed`.  No table refers to another by a foreign key: what is written behind may come in any order.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, PrimaryKeyConstraint, String, Table

from nodeagent.contract.kept import NAME_MAX
from nodeagent.infra.tables import long_text, metadata, name_type

#: Longest name of who changed something, characters: a token's name, or a command.
WHO_MAX = 128
#: Longest place in the site's tree, characters.
GROUP_MAX = 200
#: Longest reason of a change of owner, characters.
REASON_MAX = 200

_MYSQL: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}

#: One row per camera that ever was.  A deleted one stays, so that its version goes on growing when it comes back.
camera = Table(
    "camera",
    metadata,
    Column("camera_id", name_type(63), primary_key=True),
    #: Grows by one with each change of anything that stands here or in its rules.
    Column("version", BigInteger, nullable=False),
    #: `cameras_version` of its last change: whoever knows a number finds what changed since.
    Column("change_no", BigInteger, nullable=False),
    Column("name", String(NAME_MAX), nullable=False),
    #: JSON of `contract.camera.CameraSpec` with its rules, URLs redacted.
    Column("spec", long_text(), nullable=False),
    #: JSON object, by name of the stream: its URL, encrypted (`registry.secrets`); none: no URL holds a secret.
    Column("sealed", long_text()),
    #: The key that encrypted all of `sealed`.
    Column("key_id", name_type(16)),
    Column("enabled", Boolean, nullable=False),
    Column("group_path", name_type(GROUP_MAX), nullable=False),
    #: JSON object of text; `camera_label` finds cameras by it.
    Column("labels", long_text(), nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("created_by", name_type(WHO_MAX), nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("changed_by", name_type(WHO_MAX), nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
    Index("ix_camera_change", "change_no"),
    Index("ix_camera_group", "group_path"),
    Index("ix_camera_key", "key_id"),
    **_MYSQL,
)

#: One row per label of a camera that is not deleted.
camera_label = Table(
    "camera_label",
    metadata,
    Column("camera_id", name_type(63), nullable=False),
    Column("name", name_type(63), nullable=False),
    Column("value", name_type(63), nullable=False),
    PrimaryKeyConstraint("camera_id", "name"),
    Index("ix_camera_label_value", "name", "value", "camera_id"),
    **_MYSQL,
)

#: One row per version of a camera: who made it, when, and what it was; no secret, not even an encrypted one.
camera_history = Table(
    "camera_history",
    metadata,
    Column("camera_id", name_type(63), nullable=False),
    Column("version", BigInteger, nullable=False),
    #: In words: what changed.
    Column("what", String(500), nullable=False),
    Column("spec", long_text(), nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("group_path", name_type(GROUP_MAX), nullable=False),
    Column("labels", long_text(), nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("changed_by", name_type(WHO_MAX), nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
    PrimaryKeyConstraint("camera_id", "version"),
    **_MYSQL,
)

#: One row per version of a rule.  The highest version is the one in the camera's `spec`.
rule = Table(
    "rule",
    metadata,
    Column("camera_id", name_type(63), nullable=False),
    Column("rule_id", name_type(63), nullable=False),
    Column("version", BigInteger, nullable=False),
    #: JSON of `contract.rule.Rule`; none: with this version it was taken out.
    Column("spec", long_text()),
    Column("author", name_type(WHO_MAX), nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    PrimaryKeyConstraint("camera_id", "rule_id", "version"),
    **_MYSQL,
)

#: One row per version of a named set of parameters.  The highest version counts.
algorithm = Table(
    "algorithm",
    metadata,
    Column("name", name_type(63), nullable=False),
    Column("version", BigInteger, nullable=False),
    #: JSON object; none: with this version it was taken out.
    Column("parameters", long_text()),
    Column("author", name_type(WHO_MAX), nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    PrimaryKeyConstraint("name", "version"),
    **_MYSQL,
)

#: One row per grant of a camera.  At most one per camera is open: its `ended_ns` is none.
assignment = Table(
    "assignment",
    metadata,
    Column("camera_id", name_type(63), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("node_id", name_type(63), nullable=False),
    Column("incarnation", name_type(16), nullable=False),
    Column("reason", String(REASON_MAX), nullable=False),
    #: JSON object: why this node, and what else was considered.
    Column("explanation", long_text(), nullable=False),
    Column("granted_ns", BigInteger, nullable=False),
    Column("ended_ns", BigInteger),
    Column("end_reason", String(REASON_MAX), nullable=False),
    PrimaryKeyConstraint("camera_id", "epoch"),
    Index("ix_assignment_open", "ended_ns", "camera_id"),
    Index("ix_assignment_node", "node_id", "ended_ns"),
    **_MYSQL,
)

#: The highest epoch of each camera that anybody has ever told of.  No statement lowers one.
camera_epoch = Table(
    "camera_epoch",
    metadata,
    Column("camera_id", name_type(63), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    **_MYSQL,
)

#: One row per node that ever reported, or that somebody ordered to drain.
node = Table(
    "node",
    metadata,
    Column("node_id", name_type(63), primary_key=True),
    #: Grows by one with each order of a person; reports do not count.
    Column("version", BigInteger, nullable=False),
    Column("host", String(255), nullable=False),
    #: Of its last life that was heard of.
    Column("incarnation", name_type(16), nullable=False),
    #: 0: it never reported.
    Column("first_seen_ns", BigInteger, nullable=False),
    Column("last_seen_ns", BigInteger, nullable=False),
    #: Who ordered it to drain; none: nobody.
    Column("drain_by", name_type(WHO_MAX)),
    Column("drain_ns", BigInteger, nullable=False),
    #: Drain although the others lack capacity.
    Column("drain_forced", Boolean, nullable=False),
    **_MYSQL,
)

#: One row per token.  The token itself is nowhere: only its hash is.
token = Table(
    "token",
    metadata,
    Column("token_id", name_type(16), primary_key=True),
    Column("name", name_type(63), nullable=False),
    #: A person's role; none: it is a node's token.
    Column("role", String(16)),
    #: The node that it is bound to; none: it is a person's token.
    Column("node_id", name_type(63)),
    #: SHA-256 of the token, hexadecimal.
    Column("sha256", String(64), nullable=False),
    Column("created_by", name_type(WHO_MAX), nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    #: 0: never.
    Column("last_used_ns", BigInteger, nullable=False),
    #: 0: it is good.
    Column("revoked_ns", BigInteger, nullable=False),
    Column("revoked_by", name_type(WHO_MAX), nullable=False),
    **_MYSQL,
)

#: Numbers of which there is one each.
counter = Table(
    "counter",
    metadata,
    Column("name", name_type(63), primary_key=True),
    Column("value", BigInteger, nullable=False),
    **_MYSQL,
)
