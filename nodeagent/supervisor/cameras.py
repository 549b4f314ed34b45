"""Where the supervisor learns which cameras this node serves: a port, and its two sources, the TOML and a registry."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from nodeagent.contract.camera import DEFAULT_CLASS, CameraSpec
from nodeagent.contract.errors import ConfigError, DecodeError, Fault
from nodeagent.contract.ids import NS_PER_MS
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.settings.sections import PoolSettings, Settings
from nodeagent.infra.wanted import SEED, Grant, Wanted, read_wanted, write_wanted
from nodeagent.supervisor.link.handoff import GRANTED, Nudges, nobody_takes_any, read_granted, say_leaving

log = logging.getLogger(__name__)

_NO_GRANTS: Final[Mapping[str, Grant]] = MappingProxyType({})


class CameraSource(Protocol):
    """Whoever decides about this node's cameras."""

    def fileno(self) -> int | None:
        """Readable when there is a new set; None when only a reload brings one."""
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

    def reload(self) -> tuple[CameraSpec, ...]:
        """As `read`, because a person asked for it (SIGHUP): the configuration file is looked at too.

        Raises:
            ConfigError: the file cannot be used; the set before stays.
        """
        ...

    def leave(self) -> bool:
        """The node is about to stop; whether somebody will take its cameras, which `read` lacks then one by one."""
        ...

    @property
    def nobody_takes(self) -> bool:
        """Whether it is known, after `leave`, that nobody will take the cameras."""
        ...

    @property
    def grants(self) -> Mapping[str, Grant]:
        """How the cameras of the last good `read` were granted, by their ids; empty where nobody grants."""
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
        self.grants = _NO_GRANTS

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
        others = (name for name in Settings.model_fields if name not in ("cameras", "calendars", "pool"))
        self.needs_restart = tuple(n for n in others if getattr(fresh, n) != getattr(self._running, n))
        self.pools = fresh.pools
        return fresh.cameras

    def reload(self) -> tuple[CameraSpec, ...]:
        """Read the file.

        Raises:
            ConfigError: as `read`.
        """
        return self.read()

    def leave(self) -> bool:
        """Nobody takes them."""
        return False

    @property
    def nobody_takes(self) -> bool:
        """As `leave` said."""
        return True


class RegistryCameras:
    """The cameras that a registry grants: a snapshot that the child `link` writes; it nudges when it has.

    The TOML beside it still says which disks are used, and, with a registry inside, which cameras that one begins with.
    """

    def __init__(self, path: Path, running: Settings, memory_dir: Path, now_ns: int) -> None:
        """`path` is the TOML's, `memory_dir` this life's folder, `now_ns` the wall clock.

        Raises:
            OSError: the life's folder cannot be written.
        """
        self._file = TomlCameras(path, running)
        self._inside = running.registry_inside
        self._snapshot = running.node.state_dir / GRANTED
        self._seed = running.node.state_dir / SEED
        self._memory_dir = memory_dir
        self._now_ns = now_ns
        self._nudges = Nudges(memory_dir)
        self.grants = _NO_GRANTS

    @property
    def pools(self) -> tuple[PoolSettings, ...]:
        """The disks of the TOML."""
        return self._file.pools

    @property
    def needs_restart(self) -> tuple[str, ...]:
        """Sections of the TOML that wait for a restart."""
        return self._file.needs_restart

    def fileno(self) -> int:
        """Readable after a nudge."""
        return self._nudges.fileno()

    def initial(self) -> tuple[CameraSpec, ...]:
        """Those of the last life: they are captured while the link asks whether they are ours still.

        A snapshot that cannot be read is no reason not to start: the registry tells what is in it.
        """
        self._sow(self._file.initial())
        try:
            found = read_granted(self._snapshot.parent)
        except (DecodeError, OSError) as exc:
            log.error("%s; the registry is asked", exc, extra={"event": "granted_unreadable"})  # noqa: TRY400
            return ()
        if self._inside and not found.version:
            found = self._begun(self._file.initial())
        self.grants = found.grants
        return found.cameras

    def _begun(self, cameras: tuple[CameraSpec, ...]) -> Wanted:
        """At the first start with a registry inside the TOML's cameras are captured at once.

        They are noted as if they had been granted: the registry, which takes them from the same TOML, hears that they
        are served here, and with which epoch, as after a loss of its memory, and leaves them as they are.  Epochs are
        above the clock in ms, and a capture goes above what its own clips say.
        """
        grant = Grant(max(1, self._now_ns // NS_PER_MS), 1)
        begun = Wanted(1, cameras, {camera.camera_id: grant for camera in cameras})
        write_wanted(self._snapshot, begun)
        return begun

    def read(self) -> tuple[CameraSpec, ...]:
        """Read the snapshot.

        Raises:
            ConfigError: it is none.
        """
        self._nudges.drain()
        try:
            found = read_wanted(self._snapshot)
        except (DecodeError, OSError) as exc:
            why = exc.why if isinstance(exc, DecodeError) else exc.strerror
            raise ConfigError([Fault(str(self._snapshot), f"cannot be read: {why}")]) from None
        if not found.version and self.grants:
            # Somebody removed it.  That is no word of anybody who decides.
            raise ConfigError([Fault(str(self._snapshot), "gone; the cameras run on")])
        self.grants = found.grants
        return found.cameras

    def reload(self) -> tuple[CameraSpec, ...]:
        """Read the TOML and the snapshot.

        Raises:
            ConfigError: either cannot be used.
            OSError: the state folder cannot be written.
        """
        self._sow(self._file.read())
        return self.read()

    def _sow(self, cameras: tuple[CameraSpec, ...]) -> None:
        """Leave the TOML's cameras for the registry inside.  A kill before it has read them costs nothing."""
        if self._inside:
            write_wanted(self._seed, Wanted(1, cameras))

    def leave(self) -> bool:
        """Tell the link; a life's folder that cannot be written leaves nobody to take the cameras in time.

        Nor does anybody take them when their registry goes with us: it is told only so as to miss no capture.
        """
        try:
            say_leaving(self._memory_dir)
        except OSError as exc:
            log.warning("cameras are not handed over: %s", exc.strerror, extra={"event": "no_hand_over"})
            return False
        return not self._inside

    @property
    def nobody_takes(self) -> bool:
        """Whether the link said so: no registry answers that could give them to others."""
        return nobody_takes_any(self._memory_dir)


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
