"""The cameras that this node should serve now: a snapshot file that the supervisor writes and the workers follow.

It holds stream credentials, so it is readable by its owner only.  It survives a restart: an agent can start from it
while whoever decides about cameras is away.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from nodeagent.contract.camera import REVEAL, CameraSpec
from nodeagent.contract.errors import DecodeError
from nodeagent.infra.files import write_atomically


@dataclass(frozen=True, slots=True)
class Wanted:
    """A set of cameras and the number of the change that made it."""

    version: int
    cameras: tuple[CameraSpec, ...]

    def camera(self, camera_id: str) -> CameraSpec | None:
        """The camera of this name, if it is wanted."""
        return next((camera for camera in self.cameras if camera.camera_id == camera_id), None)


def write_wanted(path: Path, wanted: Wanted) -> None:
    """Replace the snapshot; a reader sees the old one or the new one, also after a power cut."""
    cameras = [camera.model_dump(mode="json", context=REVEAL) for camera in wanted.cameras]
    write_atomically(path, json.dumps({"v": 1, "version": wanted.version, "cameras": cameras}).encode(), mode=0o600)


def read_wanted(path: Path) -> Wanted:
    """Read the snapshot; an empty set with version 0 when there is none.

    Raises:
        DecodeError: the file is no such snapshot.
    """
    try:
        doc = json.loads(path.read_bytes())
        cameras = tuple(CameraSpec.model_validate(camera) for camera in doc["cameras"])
        return Wanted(int(doc["version"]), cameras)
    except FileNotFoundError:
        return Wanted(0, ())
    except (ValidationError, ValueError, KeyError, TypeError) as exc:
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
