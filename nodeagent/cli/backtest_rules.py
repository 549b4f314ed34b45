"""The rules that a backtest tries: a whole agent's file, or one with `[[rules]]` alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.errors import ConfigError, Fault
from nodeagent.infra.settings.calendars import place_calendars
from nodeagent.infra.settings.document import parse_toml, read_text
from nodeagent.infra.settings.loader import parse_document, settings_of
from nodeagent.infra.settings.sections import Settings

#: Tables of a file with `[[rules]]` that are no fields of a camera.
_OF_THE_SITE = ("site", "calendars")
_ONLY = "cameras[0]."
#: A camera that a file with `[[rules]]` alone does not describe.
_FILLED_IN = {"camera_id": "backtest", "record": {"url": "backtest.mp4"}}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line adds to the file.

    Attributes:
        model: TOML of a model; None: the file's.
        camera_id: whose section; None: the only one.
        sample_fps: None: the file's.
    """

    model: Path | None = None
    camera_id: str | None = None
    sample_fps: float | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried.

    Attributes:
        camera: its rules and sampling.
        index: of its section in the file; None: the file has `[[rules]]` alone.
        model: TOML of the model.
    """

    settings: Settings
    camera: CameraSpec
    index: int | None
    model: Path

    def shown(self, faults: list[Fault]) -> list[Fault]:
        """Faults as this file has their fields."""
        return faults if self.index is not None else _without_camera(faults)


def read_trial(path: Path, asked: Asked) -> Trial:
    """Read a file.

    Raises:
        ConfigError: names every fault by its dotted path.
    """
    text = read_text(path)
    base = path.resolve().parent
    if "cameras" in parse_toml(text, path):
        return _of_agent(settings_of(_adjusted(parse_document(text, path), asked), base), asked)
    return _of_rules(parse_toml(text, path), base, asked)


def _of_agent(settings: Settings, asked: Asked) -> Trial:
    ids = [camera.camera_id for camera in settings.cameras]
    wanted = asked.camera_id or (ids[0] if len(ids) == 1 else "")
    if wanted not in ids:
        raise ConfigError([Fault("--camera", f"expected one of the file's cameras, {ids}", repr(wanted))])
    index = ids.index(wanted)
    camera = settings.cameras[index]
    if not camera.rules:
        raise ConfigError([Fault(f"cameras[{index}].rules", "expected at least one rule")])
    files = {model.name: model.file for model in settings.models}
    if asked.model is None and not files:
        raise ConfigError([Fault("--model", "expected a model's TOML, as the file names no model")])
    file = asked.model or files[camera.model or settings.models[0].name]
    return Trial(settings, camera, index, file)


def _of_rules(doc: dict[str, Any], base: Path, asked: Asked) -> Trial:
    if not doc.get("rules"):
        raise ConfigError([Fault("rules", "expected [[rules]] as in a camera's section, or a whole agent's file")])
    if asked.model is None:
        raise ConfigError([Fault("--model", "expected a model's TOML, as a file with [[rules]] alone names none")])
    camera = {key: value for key, value in doc.items() if key not in _OF_THE_SITE}
    whole = {key: doc[key] for key in _OF_THE_SITE if key in doc}
    whole["models"] = [{"name": "backtest", "file": str(asked.model.resolve())}]
    whole["cameras"] = [{**camera, **_FILLED_IN}]
    place_calendars(whole)
    try:
        settings = settings_of(_adjusted(whole, asked), base)
    except ConfigError as exc:
        raise ConfigError(_without_camera(exc.faults)) from None
    return Trial(settings, settings.cameras[0], None, asked.model)


def _adjusted(doc: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """The document with the sampling that the command line asks for."""
    cameras = doc["cameras"] if isinstance(doc["cameras"], list) else []
    for camera in cameras:
        if asked.sample_fps is not None and isinstance(camera, dict):
            camera["sample_fps"] = asked.sample_fps
    return doc


def _without_camera(faults: Iterable[Fault]) -> list[Fault]:
    return [Fault(fault.path.removeprefix(_ONLY), fault.message, fault.value) for fault in faults]
