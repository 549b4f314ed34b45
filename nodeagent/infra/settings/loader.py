"""Reads the agent's TOML; a faulty file gives one ConfigError that names all of its faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import tomli
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from nodeagent.contract.errors import ConfigError, Fault
from nodeagent.infra.settings.sections import Settings

#: Keys whose value never appears in a fault.
SECRET_KEYS: Final = frozenset({"url", "secret", "password", "token"})
#: Dotted patterns of the fields that hold a path, with `[]` for a list's index.
PATH_FIELDS: Final = frozenset({"node.state_dir", "pool[].path", "models[].file", "alarm.evidence_dir"})
#: Longest value quoted in a fault, characters.
QUOTE_MAX: Final = 60


def load_settings(path: Path) -> Settings:
    """Read and check a configuration file.

    Raises:
        ConfigError: it cannot be read, is no TOML, or has faults; lists them all.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as exc:
        raise ConfigError([Fault(str(path), f"cannot be read: {exc.strerror}")]) from None
    except UnicodeDecodeError as exc:
        raise ConfigError([Fault(str(path), f"expected UTF-8 text, byte {exc.start} is none")]) from None
    return parse_settings(text, path)


def parse_settings(text: str, path: Path) -> Settings:
    """As `load_settings`, from text; relative paths in it are relative to the folder of `path`."""
    try:
        doc = tomli.loads(text)
    except tomli.TOMLDecodeError as exc:
        raise ConfigError([Fault(str(path), f"not TOML: {exc}")]) from None
    _absolute(doc, path.resolve().parent)
    try:
        return Settings.model_validate(doc)
    except ValidationError as exc:
        raise ConfigError(fault for error in exc.errors(include_url=False) for fault in _faults(error)) from None


def _absolute(doc: dict[str, Any], base: Path) -> None:
    """Make the file's relative paths absolute, in place; what is no string is left for validation to name."""

    def walk(node: Any, where: str) -> None:
        if isinstance(node, list):
            for item in node:
                walk(item, f"{where}[]")
        if not isinstance(node, dict):
            return
        for key, value in node.items():
            dotted = f"{where}.{key}" if where else key
            if dotted in PATH_FIELDS and isinstance(value, str):
                node[key] = str(base / Path(value).expanduser())
            walk(value, dotted)

    walk(doc, "")
    for camera in doc.get("cameras", []) if isinstance(doc.get("cameras"), list) else []:
        for stream in ("record", "analyse"):
            spec = camera.get(stream) if isinstance(camera, dict) else None
            url = spec.get("url") if isinstance(spec, dict) else None
            if isinstance(url, str) and url and "://" not in url:
                spec["url"] = str(base / Path(url).expanduser())


def _faults(error: ErrorDetails) -> list[Fault]:
    where = ""
    for part in error["loc"]:
        if isinstance(part, int):
            where += f"[{part}]"
        elif part not in _UNION_TAGS:
            where += f".{part}" if where else str(part)
    message = error["msg"].removeprefix("Value error, ")
    if not where:
        # A fault across sections brings its own path, one a line.
        return [Fault(*line.split(": ", 1)) for line in message.split("\n")]
    key = where.rpartition(".")[2].partition("[")[0]
    given = error.get("input")
    if error["type"] == "missing":
        return [Fault(where, "required, but missing")]
    if error["type"] == "extra_forbidden":
        return [Fault(where, "unknown key")]
    value = "" if key in SECRET_KEYS or isinstance(given, dict | list) else repr(given)[:QUOTE_MAX]
    return [Fault(where, message, value)]


#: Names that pydantic puts into the location of a discriminated union.
_UNION_TAGS: Final = frozenset({"intrusion", "loitering"})
