"""What is answered of cameras, rules, algorithms and tokens: all that is kept for good.  Pure.  Times are UTC ns.

No answer of this module holds a secret but `TokenMade`, and that one once.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.ids import CameraId, Frozen, FrozenStrict, ModelName, NodeId, RuleId, Switch, UtcNs
from nodeagent.contract.rule import Rule
from registry.store.algorithms import AlgorithmVersion
from registry.store.camera_record import CameraDraft, CameraRow, CameraVersion
from registry.store.rules import RuleVersion
from registry.store.tokens import TokenRow
from registry.tokens import Role


class Camera(Frozen):
    """A camera.  `spec`, `enabled`, `group` and `labels` are what is sent to change it; in URLs `***` stands for what
    is secret, and leaves it as it is when it is sent back.
    """

    camera_id: CameraId
    #: Grows by one with each change; the ETag.
    version: int
    spec: CameraSpec
    enabled: bool
    group: str
    labels: dict[str, str]
    created_by: str
    created_ns: UtcNs
    changed_by: str
    changed_ns: UtcNs

    @classmethod
    def of(cls, row: CameraRow) -> Camera:
        """From the store's."""
        plain = ("version", "spec", "enabled", "group", "created_by", "created_ns", "changed_by", "changed_ns")
        values = {name: getattr(row, name) for name in plain}
        return cls.model_construct(camera_id=row.camera_id, labels=dict(row.labels), **values)


class Cameras(Frozen):
    """A part of the cameras, in the order of their ids."""

    cameras: tuple[Camera, ...]
    #: Path of the next part; none after the last.
    next: str | None


class CameraChange(Frozen):
    """One version of a camera; URLs are redacted."""

    version: int
    #: In words, what changed.
    what: str
    spec: CameraSpec
    enabled: bool
    group: str
    labels: dict[str, str]
    deleted: bool
    changed_by: str
    changed_ns: UtcNs

    @classmethod
    def of(cls, version: CameraVersion) -> CameraChange:
        """From the store's."""
        plain = ("version", "what", "spec", "enabled", "group", "deleted", "changed_by", "changed_ns")
        values = {name: getattr(version, name) for name in plain}
        return cls.model_construct(labels=dict(version.labels), **values)


class CameraHistory(Frozen):
    """Versions of a camera, newest first."""

    versions: tuple[CameraChange, ...]
    #: Path of the next part; none after the last.
    next: str | None


class RuleKept(Frozen):
    """A rule that a camera has."""

    #: Grows by one with each change of this rule; the ETag.
    version: int
    rule: Rule


class Rules(Frozen):
    """All rules of a camera, as many as its document holds."""

    camera_id: CameraId
    rules: tuple[RuleKept, ...]


class RuleChange(Frozen):
    """One version of a rule."""

    version: int
    #: None: with this version it was taken out.
    rule: Rule | None
    author: str
    created_ns: UtcNs

    @classmethod
    def of(cls, version: RuleVersion) -> RuleChange:
        """From the store's."""
        return cls(version=version.version, rule=version.rule, author=version.author, created_ns=version.created_ns)


class RuleHistory(Frozen):
    """The newest versions of a rule, newest first."""

    camera_id: CameraId
    rule_id: RuleId
    versions: tuple[RuleChange, ...]


class AlgorithmDraft(FrozenStrict):
    """A set of parameters as somebody wants it to be."""

    #: Any JSON object; nodes read what they know.
    parameters: dict[str, Any]


class Algorithm(Frozen):
    """One version of a named set of parameters."""

    name: ModelName
    #: Grows by one with each change; the ETag.
    version: int
    #: None: with this version it was taken out.
    parameters: dict[str, Any] | None
    author: str
    created_ns: UtcNs

    @classmethod
    def of(cls, version: AlgorithmVersion) -> Algorithm:
        """From the store's."""
        return cls(
            name=version.name,
            version=version.version,
            parameters=None if version.parameters is None else dict(version.parameters),
            author=version.author,
            created_ns=version.created_ns,
        )


class Algorithms(Frozen):
    """A part of the sets of parameters that count, in the order of their names; or versions of one, newest first."""

    algorithms: tuple[Algorithm, ...]
    #: Path of the next part; none after the last.
    next: str | None


class ImportDraft(FrozenStrict):
    """Many cameras, written in one transaction: all of them or none."""

    cameras: tuple[CameraDraft, ...] = Field(min_length=1, max_length=20_000)
    #: Replace those that are there and differ.
    overwrite: Switch = False


class Imported(Frozen):
    """What an import did: how many cameras it made and changed, and how many were as in the file."""

    made: int
    changed: int
    same: int


class TokenDraft(FrozenStrict):
    """A token that somebody wants: of a person or program with a role, or of a node."""

    #: Stands in the log and in histories.
    name: ModelName
    #: What its bearer may do: for a person's or a program's.
    role: Role | None = None
    #: The node that it is for.
    node_id: NodeId | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> TokenDraft:
        if (self.role is None) is (self.node_id is None):
            raise PydanticCustomError("one_of_both", "expected either `role` or `node_id`")
        return self


class Token(Frozen):
    """A token, without its secret."""

    token_id: str
    name: str
    #: None: it is a node's.
    role: Role | None
    #: None: it is a person's.
    node_id: str | None
    created_by: str
    created_ns: UtcNs
    #: May be a minute late; 0: never.
    last_used_ns: UtcNs
    #: 0: it is good.
    revoked_ns: UtcNs
    revoked_by: str

    @classmethod
    def of(cls, row: TokenRow) -> Token:
        """From the store's."""
        plain = ("created_by", "created_ns", "last_used_ns", "revoked_ns", "revoked_by")
        values = {name: getattr(row, name) for name in plain}
        bearer = row.bearer
        return cls(token_id=bearer.token_id, name=bearer.name, role=bearer.role, node_id=bearer.node_id, **values)


class Tokens(Frozen):
    """A part of the tokens, revoked ones too, in the order of their ids."""

    tokens: tuple[Token, ...]
    #: Path of the next part; none after the last.
    next: str | None


class TokenMade(Frozen):
    """A new token."""

    token_id: str
    #: The token itself: shown here, and never again.
    token: str
