"""Reads a TOML file, whoever's it is; what is wrong with it becomes one ConfigError that names all of its faults."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, TypeVar

import tomli
from pydantic import BaseModel, ValidationError

from nodeagent.contract.errors import ConfigError, Fault
from nodeagent.infra.settings.faults import faults_of

_Model = TypeVar("_Model", bound=BaseModel)


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        # A byte order mark is what some editors put before the text.
        return path.read_bytes().decode("utf-8-sig")
    except OSError as exc:
        raise ConfigError([Fault(str(path), f"cannot be read: {exc.strerror}")]) from None
    except UnicodeDecodeError as exc:
        raise ConfigError([Fault(str(path), f"expected UTF-8 text, byte {exc.start} is none")]) from None


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """The document of a TOML text, not checked.

    Raises:
        ConfigError: it is no TOML.
    """
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as exc:
        raise ConfigError([Fault(str(path), f"not TOML: {exc}")]) from None


def make_absolute(node: Any, base: Path, fields: Set[str], where: str = "") -> None:
    """Make relative paths in a document absolute, in place; what is no text is left for validation to name.

    `fields`: dotted patterns of those that hold a path, with `[]` for a list's index.
    """
    if isinstance(node, list):
        for item in node:
            make_absolute(item, base, fields, f"{where}[]")
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        dotted = f"{where}.{key}" if where else key
        if dotted in fields and isinstance(value, str):
            node[key] = str(base / Path(value).expanduser())
        make_absolute(value, base, fields, dotted)


def validated(model: type[_Model], doc: dict[str, Any], cross_faults: Sequence[Fault]) -> _Model:
    """A document as its model; `cross_faults` are those between its fields, which no single one shows.

    Raises:
        ConfigError: there are faults of either kind; lists them all.
    """
    try:
        settings = model.model_validate(doc)
    except ValidationError as exc:
        raise ConfigError([*faults_of(exc.errors(include_url=False), model), *cross_faults]) from None
    if cross_faults:
        raise ConfigError(cross_faults)
    return settings
