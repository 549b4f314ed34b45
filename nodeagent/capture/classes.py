"""How long the clips of each camera stay: the class that its configuration names, also when it is not wanted any more.

A camera that was removed, or that another node serves now, leaves clips here.  They keep the limits of the class that
it had last, so that footage which may be kept for a week does not stay for good.  Which class that was stands in a file
of the state folder, which grows by a line for each camera that ever had a class other than the default one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias

from nodeagent.capture.retention import Limits
from nodeagent.contract.camera import DEFAULT_CLASS
from nodeagent.contract.clip import StreamName
from nodeagent.contract.errors import DecodeError
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.files import write_atomically
from nodeagent.infra.settings.sections import RetentionSettings, Settings
from nodeagent.infra.wanted import WantedFile

log = logging.getLogger(__name__)

_DAY_NS, _HOUR_NS = 24 * 3600 * NS_PER_S, 3600 * NS_PER_S


#: How long the clips of a camera's stream stay.
LimitsOf: TypeAlias = Callable[[str, StreamName], Limits]


class Classes:
    """Follows the wanted cameras; for one thread.

    Attributes:
        limits: of a camera's stream, as of the last refresh; another object when some are others.  A class that is not
            configured any more counts as the default one.
    """

    def __init__(self, settings: Settings) -> None:
        state_dir = settings.node.state_dir
        self._classes = {section.name: _limits(section) for section in settings.retention}
        self._classes.setdefault(DEFAULT_CLASS, _limits(RetentionSettings(name=DEFAULT_CLASS)))
        self._wanted = WantedFile(state_dir / "wanted.json")
        self._path = state_dir / "retention.json"
        #: Class by camera, of those that have another than the default one.
        self._named = _read(self._path)
        self.limits: LimitsOf = partial(_limits_of, self._classes, self._named)

    def refresh(self) -> bool:
        """Take in what changed; whether the limits of a camera may be others now."""
        try:
            if not self._wanted.refresh():
                return False
        except DecodeError as exc:
            log.warning("%s; classes stay as they are", exc, extra={"event": "wanted_unreadable"})
            return False
        named = dict(self._named)
        for camera in self._wanted.current.cameras:
            named.pop(camera.camera_id, None)
            if camera.retention not in ("", DEFAULT_CLASS):
                named[camera.camera_id] = camera.retention
        if named == self._named:
            return False
        self._named = named
        self.limits = partial(_limits_of, self._classes, named)
        self._keep()
        return True

    def _keep(self) -> None:
        try:
            write_atomically(self._path, json.dumps({"v": 1, "classes": self._named}).encode())
        except OSError as exc:
            # Only cameras that are removed before the next start would be forgotten.
            log.warning("%s cannot be written: %s", self._path, exc.strerror, extra={"event": "classes_lost"})


def _limits_of(
    classes: Mapping[str, dict[StreamName, Limits]], named: Mapping[str, str], camera_id: str, stream: StreamName
) -> Limits:
    return (classes.get(named.get(camera_id, DEFAULT_CLASS)) or classes[DEFAULT_CLASS])[stream]


def _limits(section: RetentionSettings) -> dict[StreamName, Limits]:
    record_ns = round(section.days * _DAY_NS) if section.days else None
    return {
        "record": Limits(record_ns, section.weight),
        "analyse": Limits(round(section.analyse_hours * _HOUR_NS), section.weight),
    }


def _read(path: Path) -> dict[str, str]:
    try:
        found: Iterable[tuple[object, object]] = json.loads(path.read_bytes())["classes"].items()
        return {str(camera): str(name) for camera, name in found}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        log.warning("%s cannot be read (%s)", path, type(exc).__name__, extra={"event": "classes_lost"})
        return {}
