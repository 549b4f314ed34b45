"""The cameras that this node serves, as the link holds them: changed in memory, then noted, then the supervisor told.

Killed after the note and before the word, the next link says the word at its start; killed before the note, it decides
anew from the note of before.  A state folder that refuses costs a later turn: memory and note differ until then, and
the supervisor goes on with the note.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import DecodeError
from nodeagent.infra.wanted import Grant, Wanted, write_wanted
from nodeagent.supervisor.link.handoff import GRANTED, nudge, read_granted
from nodeagent.supervisor.link.reconcile import LetGo, Take

log = logging.getLogger(__name__)


class Snapshot:
    """What is held.

    Attributes:
        grants: by camera.
        trouble: why it is not noted, if it is not; one sentence.
    """

    def __init__(self, state_dir: Path, memory_dir: Path) -> None:
        """Begin with what was noted last."""
        self._path = state_dir / GRANTED
        self._memory_dir = memory_dir
        self._specs: dict[str, CameraSpec] = {}
        self.grants: dict[str, Grant] = {}
        self.trouble = ""
        self._version = 0
        # The last link may have been killed between note and word.
        self._is_noted = False
        try:
            found = read_granted(state_dir)
        except (DecodeError, OSError) as exc:
            log.error("%s; the registry is asked", exc, extra={"event": "granted_unreadable"})  # noqa: TRY400
            return
        self._version = found.version
        self._specs = {camera.camera_id: camera for camera in found.cameras if camera.camera_id in found.grants}
        self.grants = {camera_id: found.grants[camera_id] for camera_id in self._specs}

    def spec(self, camera_id: str) -> CameraSpec | None:
        """The configuration with which a camera is served."""
        return self._specs.get(camera_id)

    def change(self, actions: Iterable[Take | LetGo]) -> tuple[int, int]:
        """Take and let go; returns how many cameras came and went."""
        came = went = 0
        for action in actions:
            self._is_noted = False
            match action:
                case Take(camera_id, grant, spec):
                    came += camera_id not in self.grants
                    self._take(camera_id, grant, spec)
                case LetGo(camera_id, why):
                    went += 1
                    del self.grants[camera_id], self._specs[camera_id]
                    log.info("camera %s is let go: %s", camera_id, why, extra={"event": "let_go", "camera": camera_id})
        return came, went

    def _take(self, camera_id: str, grant: Grant, spec: CameraSpec | None) -> None:
        log.info(
            "camera %s: granted, epoch %d, version %d", camera_id, grant.epoch, grant.version,
            extra={"event": "granted", "camera": camera_id, "epoch": grant.epoch, "version": grant.version},
        )  # fmt: skip
        self.grants[camera_id] = grant
        if spec is not None:
            self._specs[camera_id] = spec

    def note(self) -> None:
        """Write down what changed since the last note, and tell the supervisor."""
        if self._is_noted:
            return
        wanted = Wanted(self._version + 1, tuple(self._specs[name] for name in sorted(self._specs)), self.grants)
        try:
            write_wanted(self._path, wanted)
            nudge(self._memory_dir)
        except OSError as exc:
            self._say(f"{exc.filename or self._path}: {exc.strerror}")
            return
        self._version, self._is_noted = wanted.version, True
        self._say("")

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.warning("granted cameras are not noted: %s", trouble, extra={"event": "granted_not_noted"})
        self.trouble = trouble
