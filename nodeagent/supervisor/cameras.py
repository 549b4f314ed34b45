"""Where the supervisor learns which cameras this node serves: a port, and the TOML as its first source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from nodeagent.contract.camera import DEFAULT_CLASS, CameraSpec
from nodeagent.contract.errors import ConfigError, Fault
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.settings.sections import PoolSettings, Settings


class CameraSource(Protocol):
    """Whoever decides about this node's cameras."""

    def fileno(self) -> int | None:
        """Readable when there is a new set; None when only SIGHUP brings one."""
        ...

    def initial(self) -> tuple[CameraSpec, ...]:
        """The cameras to begin with; known without asking anybody."""
        ...

    def read(self) -> tuple[CameraSpec, ...]:
        """The cameras that are wanted now.

        Raises:
            ConfigError: what there is cannot be used; the set before stays.
        """
        ...

    @property
    def pools(self) -> tuple[PoolSettings, ...]:
        """The disks that are to be used, as of the last good `read`."""
        ...

    @property
    def needs_restart(self) -> tuple[str, ...]:
        """Sections that differed at the last `read` and take effect only when the agent is started anew."""
        ...


class TomlCameras:
    """The `[[cameras]]`, and with them the `[[pool]]`, of a TOML file, read again at SIGHUP."""

    def __init__(self, path: Path, running: Settings) -> None:
        self._path = path
        self._running = running
        self.needs_restart: tuple[str, ...] = ()
        self.pools = running.pools

    def fileno(self) -> int | None:
        """Files do not call."""
        return None

    def initial(self) -> tuple[CameraSpec, ...]:
        """Those of the file as it was when the agent started."""
        return self._running.cameras

    def read(self) -> tuple[CameraSpec, ...]:
        """Read the file.

        Raises:
            ConfigError: it has faults, or a camera asks for a model or a class that does not run; lists them all.
        """
        fresh = load_settings(self._path)
        faults = [*_models_not_loaded(fresh, self._running), *_classes_not_loaded(fresh, self._running)]
        if faults:
            raise ConfigError(faults)
        others = (name for name in Settings.model_fields if name not in ("cameras", "pool"))
        self.needs_restart = tuple(n for n in others if getattr(fresh, n) != getattr(self._running, n))
        self.pools = fresh.pools
        return fresh.cameras


def _models_not_loaded(fresh: Settings, running: Settings) -> Iterator[Fault]:
    """Cameras whose model the inference workers, which read theirs when they start, do not know."""
    loaded = sorted(model.name for model in running.models)
    for i, camera in enumerate(fresh.cameras):
        name = camera.model or fresh.models[0].name
        if name not in loaded:
            yield Fault(
                f"cameras[{i}].model", f"expected one of {loaded}: another is loaded at a restart only", repr(name)
            )


def _classes_not_loaded(fresh: Settings, running: Settings) -> Iterator[Fault]:
    """Cameras whose class of retention the storage worker, which reads them when it starts, does not know."""
    loaded = sorted({DEFAULT_CLASS, *(section.name for section in running.retention)})
    for i, camera in enumerate(fresh.cameras):
        if camera.retention and camera.retention not in loaded:
            yield Fault(
                f"cameras[{i}].retention",
                f"expected one of {loaded}: another is loaded at a restart only",
                repr(camera.retention),
            )
