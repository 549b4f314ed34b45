"""A file of cameras for `registry import`: the `[[cameras]]` of an agent's TOML, with all of its faults.

Each may also have what the registry alone knows of a camera: `enabled`, `group` and `labels`.  Schedules may name
the file's `[[calendars]]`.  Other sections are passed over, so that an agent's file can be given as it is; so models
and classes of retention need not be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from nodeagent.contract.errors import ConfigError, Fault
from nodeagent.contract.ids import CameraId
from nodeagent.infra.settings.calendars import calendar_faults
from nodeagent.infra.settings.crosscheck import camera_faults
from nodeagent.infra.settings.document import read_text
from nodeagent.infra.settings.faults import faults_of
from nodeagent.infra.settings.loader import parse_document
from registry.http.answers_kept import ImportDraft
from registry.store.camera_record import CameraDraft

#: What a camera has in the registry beside its configuration.
BESIDE: Final = ("enabled", "group", "labels")


@dataclass(frozen=True, slots=True)
class FileCamera:
    """A camera of the file.

    Attributes:
        given: which of BESIDE the file says.
    """

    draft: CameraDraft
    given: frozenset[str]

    @property
    def camera_id(self) -> CameraId:
        """The camera's name."""
        return self.draft.camera_id

    def beside(self, kept: Mapping[str, Any]) -> CameraDraft:
        """What to write where the registry has it already: what the file does not say stays as it is there.

        `kept` is the registry's row.
        """
        stays = {name: kept[name] for name in BESIDE if name not in self.given}
        return self.draft.model_copy(update=stays)


def load_cameras(path: Path) -> list[FileCamera]:
    """Read and check the file.

    Raises:
        ConfigError: it cannot be read, is no TOML, has no cameras, or has faults; lists them all.
    """
    doc = parse_document(read_text(path), path)
    tables = doc.get("cameras")
    if not isinstance(tables, list) or not tables:
        raise ConfigError([Fault("cameras", "expected at least one [[cameras]]")])
    faults = [*calendar_faults(doc), *camera_faults(doc)]
    try:
        drafts = ImportDraft.model_validate({"cameras": [_split(table) for table in tables]}).cameras
    except ValidationError as exc:
        errors = [_as_written(error) for error in exc.errors(include_url=False)]
        raise ConfigError(faults_of(errors, CameraDraft) + faults) from None
    if faults:
        raise ConfigError(faults)
    return [
        FileCamera(draft, frozenset(name for name in BESIDE if name in table))
        for draft, table in zip(drafts, tables, strict=True)
    ]


def _split(table: Any) -> Any:
    """A table of the file in the registry's form."""
    if not isinstance(table, dict):
        return table
    spec = {name: value for name, value in table.items() if name not in BESIDE}
    return {"spec": spec} | {name: table[name] for name in BESIDE if name in table}


def _as_written(error: ErrorDetails) -> ErrorDetails:
    """An error at the place where it stands in the file, which has no `spec`."""
    loc = error["loc"]
    if len(loc) > 2 and loc[2] == "spec":
        loc = (*loc[:2], *loc[3:])
    return cast(ErrorDetails, {**error, "loc": loc})
