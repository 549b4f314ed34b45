"""Reads the agent's TOML; a faulty file gives one ConfigError that names all of its faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import tomli

from nodeagent.contract.url import meant_as_source
from nodeagent.infra.settings.calendars import place_calendars
from nodeagent.infra.settings.crosscheck import cross_faults
from nodeagent.infra.settings.document import make_absolute, parse_toml, read_text, validated
from nodeagent.infra.settings.sections import NodeSettings, Settings

#: Fields that hold a path, as `make_absolute` wants them.
PATH_FIELDS: Final = frozenset(
    {
        "node.state_dir",
        "pool[].path",
        "models[].file",
        "alarm.evidence_dir",
        "endpoint.tls_cert",
        "endpoint.tls_key",
        "peers[].ca_file",
        "registry.token_file",
        "registry.ca_file",
    }
)


def load_settings(path: Path) -> Settings:
    """Read and check a configuration file.

    Raises:
        ConfigError: it cannot be read, is no TOML, or has faults; lists them all.
    """
    return parse_settings(read_text(path), path)


def parse_document(text: str, path: Path) -> dict[str, Any]:
    """The document of a TOML text, not checked; videos that it names are relative to the folder of `path`, and its
    calendars are in the schedules that name them.

    Raises:
        ConfigError: it is no TOML.
    """
    doc = parse_toml(text, path)
    _absolute_videos(doc, path.resolve().parent)
    place_calendars(doc)
    return doc


def parse_settings(text: str, path: Path) -> Settings:
    """As `load_settings`, from text; relative paths in it are relative to the folder of `path`."""
    return settings_of(parse_document(text, path), path.resolve().parent)


def settings_of(doc: dict[str, Any], base: Path) -> Settings:
    """A document as settings; relative paths in it are relative to the folder `base` and are made absolute in place.

    Raises:
        ConfigError: it has faults; lists them all.
    """
    # A fault of the host's name, which is the default, belongs to `node.node_id` too.
    doc.setdefault("node", {})
    make_absolute(doc, base, PATH_FIELDS)
    return validated(Settings, doc, cross_faults(doc))


def state_dir_of(path: Path) -> Path | None:
    """The state folder that a file names, however faulty the rest of it is; None when it is no TOML.

    For looking at an agent that runs on what the file said before.
    """
    try:
        doc = tomli.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError):
        return None
    node = doc.get("node")
    named = node.get("state_dir") if isinstance(node, dict) else None
    return (
        path.resolve().parent / Path(named).expanduser()
        if isinstance(named, str)
        else NodeSettings.model_fields["state_dir"].default
    )


def _absolute_videos(doc: dict[str, Any], base: Path) -> None:
    """Make the paths of streams that are files absolute, in place: what carries no scheme."""
    cameras = doc.get("cameras")
    for camera in cameras if isinstance(cameras, list) else []:
        for key in ("record", "analyse"):
            stream = camera.get(key) if isinstance(camera, dict) else None
            if not isinstance(stream, dict):
                continue
            url = stream.get("url")
            if isinstance(url, str) and url and "://" not in url and not meant_as_source(url):
                stream["url"] = str(base / Path(url).expanduser())
