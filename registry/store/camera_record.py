"""A camera as people write it into the registry, as the registry tells of it, and how the list of all is narrowed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, ValidationError
from sqlalchemy import Row

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import DecodeError
from nodeagent.contract.ids import ID_PATTERN, CameraId, FrozenStrict, Switch
from nodeagent.infra.registry_tables import GROUP_MAX

#: Labels of one camera: as many as a node may have.
LABELS_MAX = 32


def _place(group: str) -> str:
    if group and any(not part or part != part.strip() for part in group.split("/")):
        raise ValueError("expected names with `/` between them, such as north/hall-1")
    return group


#: A word of placement and of filters, as a name or a value.
Label = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
#: Place in the site's tree, such as `north/hall-1/line 3`.
Group = Annotated[str, StringConstraints(max_length=GROUP_MAX), AfterValidator(_place)]


class CameraDraft(FrozenStrict):
    """A camera as somebody wants it to be.

    A stream's URL may be given as the registry shows it, with `***` for what is secret: then the secret stays.
    """

    #: Where its picture comes from and what is judged in it.
    spec: CameraSpec
    #: Whether a node serves it.
    enabled: Switch = True
    #: Its place in the site's tree, such as `north/hall-1`; empty: none.
    group: Group = ""
    #: Words of placement and of filters, such as `{ site = "north", gpu = "l4" }`.
    labels: Annotated[dict[Label, Label], Field(max_length=LABELS_MAX)] = Field(default_factory=dict)

    @property
    def camera_id(self) -> CameraId:
        """The camera's name."""
        return self.spec.camera_id


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraRow:
    """A camera as the database has it.

    Attributes:
        spec: with its rules; its URLs are redacted unless it was asked for by who may see them.
        version: grows by one with each change.
        change_no: `cameras_version` of its last change.
        deleted: it is no camera any more; told by `changed_since` only.
        created_ns, changed_ns: wall clock, UTC ns.
        trouble: why its URLs are redacted although they were asked for in clear; empty: they are not.
    """

    spec: CameraSpec
    version: int
    change_no: int
    enabled: bool
    group: str
    labels: Mapping[str, str]
    deleted: bool
    created_by: str
    created_ns: int
    changed_by: str
    changed_ns: int
    trouble: str = ""

    @property
    def camera_id(self) -> CameraId:
        """The camera's name."""
        return self.spec.camera_id

    @property
    def draft(self) -> CameraDraft:
        """What to write to leave it as it is."""
        return CameraDraft.model_construct(
            spec=self.spec, enabled=self.enabled, group=self.group, labels=dict(self.labels)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraVersion:
    """One version of a camera in its history; its URLs are redacted.

    Attributes:
        what: in words, what changed.
        changed_ns: wall clock, UTC ns.
    """

    version: int
    what: str
    spec: CameraSpec
    enabled: bool
    group: str
    labels: Mapping[str, str]
    deleted: bool
    changed_by: str
    changed_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraFilter:
    """Which cameras are listed: those for which all of it holds.

    Attributes:
        enabled: none: either.
        group: those at this place of the tree, or below it; empty: all.
        labels: those that carry all of these.
        text: part of id or name, in whatever case; empty: all.
    """

    enabled: bool | None = None
    group: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True, slots=True)
class CameraPage:
    """A part of the list of cameras, ordered by id.

    Attributes:
        after: what to ask for to get the next part; none: this is the last one.
    """

    rows: tuple[CameraRow, ...]
    after: CameraId | None


def camera_row(row: Row[Any], spec: CameraSpec | None = None, trouble: str = "") -> CameraRow:
    """A CameraRow from a row of the table `camera`, with another spec if one is given.

    Raises:
        DecodeError: somebody else wrote into the table.
    """
    got = row._mapping
    plain = ("version", "change_no", "created_by", "created_ns", "changed_by", "changed_ns")
    return CameraRow(
        spec=spec or stored_spec(row),
        enabled=bool(got["enabled"]),
        group=got["group_path"],
        labels=stored_labels(row),
        deleted=bool(got["deleted"]),
        trouble=trouble,
        **{name: got[name] for name in plain},
    )


def camera_version(row: Row[Any]) -> CameraVersion:
    """A CameraVersion from a row of the table `camera_history`.

    Raises:
        DecodeError: somebody else wrote into the table.
    """
    return CameraVersion(
        version=row.version,
        what=row.what,
        spec=stored_spec(row),
        enabled=bool(row.enabled),
        group=row.group_path,
        labels=stored_labels(row),
        deleted=bool(row.deleted),
        changed_by=row.changed_by,
        changed_ns=row.changed_ns,
    )


def stored_spec(row: Row[Any]) -> CameraSpec:
    """The spec of a row, URLs redacted.

    Raises:
        DecodeError: it is none.
    """
    try:
        return CameraSpec.model_validate_json(row.spec)
    except ValidationError as exc:
        # Where, and not what: somebody may have written a URL in clear.
        where = ".".join(str(part) for part in exc.errors(include_input=False)[0]["loc"])
        raise DecodeError(f"table camera, {row.camera_id}: spec: {where or 'not JSON'}") from None


def stored_labels(row: Row[Any]) -> dict[str, str]:
    """The labels of a row.

    Raises:
        DecodeError: they are none.
    """
    try:
        found = json.loads(row.labels)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DecodeError(f"table camera, {row.camera_id}: labels: no JSON object")
    return found
