"""The cameras that this node should serve now: a snapshot file that the supervisor writes and the workers follow.

It holds stream credentials, so it is readable by its owner only.  It survives a restart: an agent can start from it
while whoever decides about cameras is away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from nodeagent.contract.camera import REVEAL, CameraSpec
from nodeagent.contract.errors import DecodeError
from nodeagent.infra.files import write_atomically

#: Cameras of the configuration for a registry inside to begin with, in the state folder; the supervisor writes it.
SEED: Final = "seed.json"


@dataclass(frozen=True, slots=True)
class Grant:
    """That this node owns a camera.

    Attributes:
        epoch: with which it was granted; at least 1.
        version: of the camera's configuration as the registry counts it; at least 1.
    """

    epoch: int
    version: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """A set of cameras and the number of the change that made it.

    Attributes:
        version: of the set; grows with each change.
        cameras: those that this node should serve.
        grants: by camera, where a registry decides; empty where the configuration does.
    """

    version: int
    cameras: tuple[CameraSpec, ...]
    grants: Mapping[str, Grant] = field(default_factory=dict)

    def camera(self, camera_id: str) -> CameraSpec | None:
        """The camera of this name, if it is wanted."""
        return next((camera for camera in self.cameras if camera.camera_id == camera_id), None)

    def epoch(self, camera_id: str) -> int:
        """With which the camera was granted; 0 when nobody grants it: then its capture chooses one."""
        grant = self.grants.get(camera_id)
        return grant.epoch if grant is not None else 0


def write_wanted(path: Path, wanted: Wanted) -> None:
    """Replace the snapshot; a reader sees the old one or the new one, also after a power cut."""
    cameras = [camera.model_dump(mode="json", context=REVEAL) for camera in wanted.cameras]
    doc: dict[str, Any] = {"v": 1, "version": wanted.version, "cameras": cameras}
    if wanted.grants:
        doc["grants"] = {name: [grant.epoch, grant.version] for name, grant in wanted.grants.items()}
    write_atomically(path, json.dumps(doc).encode(), mode=0o600)


def read_wanted(path: Path) -> Wanted:
    """Read the snapshot; an empty set with version 0 when there is none.

    Raises:
        DecodeError: the file is no such snapshot.
    """
    try:
        doc = json.loads(path.read_bytes())
        cameras = tuple(CameraSpec.model_validate(camera) for camera in doc["cameras"])
        grants = {str(name): Grant(int(epoch), int(number)) for name, (epoch, number) in doc.get("grants", {}).items()}
        return Wanted(int(doc["version"]), cameras, grants)
    except FileNotFoundError:
        return Wanted(0, ())
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DecodeError(f"{path.name}: not a snapshot of cameras ({type(exc).__name__})") from None


class WantedFile:
    """Follows the snapshot; costs one stat when nothing changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self.current = Wanted(0, ())

    def refresh(self) -> bool:
        """Read the snapshot if it was replaced; return whether it was.  `current` keeps the last good one.

        Raises:
            DecodeError: the new file is no such snapshot; the last good one stays.
        """
        try:
            info = os.stat(self._path)
        except FileNotFoundError:
            return False
        stamp = (info.st_ino, info.st_mtime_ns)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self.current = read_wanted(self._path)
        return True
