"""Which model serves which camera."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from nodeagent.contract.errors import DecodeError
from nodeagent.inference.model import Model
from nodeagent.infra.wanted import WantedFile

log = logging.getLogger(__name__)


class Choice:
    """Follows the wanted cameras; remembers the model of a camera that is gone, for its last clips."""

    def __init__(self, models: Mapping[str, Model], wanted: WantedFile) -> None:
        """`models` in the order of the configuration; the first serves cameras that name none."""
        self._models = models
        self._wanted = wanted
        self._names: dict[str, str] = {}

    def model_of(self, camera_id: str) -> Model | None:
        """The camera's model; None when the camera was never wanted here and there is more than one model.

        A guess between several models would look like a result, so there is none.
        """
        self._refresh()
        first = next(iter(self._models))
        if camera_id not in self._names:
            return self._models[first] if len(self._models) == 1 else None
        return self._models.get(self._names[camera_id] or first)

    def _refresh(self) -> None:
        try:
            if self._wanted.refresh():
                self._names |= {camera.camera_id: camera.model for camera in self._wanted.current.cameras}
        except DecodeError as exc:
            log.warning("the last good list of cameras stays in use: %s", exc, extra={"event": "wanted_unreadable"})
