"""Writes a document as TOML.  Pure.  tomli only reads, and one command's output is no reason for another dependency."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def toml_text(doc: Mapping[str, Any]) -> str:
    """TOML text of a document of tables, lists, text, numbers and switches; None becomes a comment."""
    return "\n".join(_table(doc, "")).strip() + "\n"


def _table(table: Mapping[str, Any], prefix: str) -> list[str]:
    lines = [_line(key, value) for key, value in table.items() if not _is_section(value)]
    for key, value in table.items():
        name = f"{prefix}.{_key(key)}" if prefix else _key(key)
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", *_table(value, name)]
        elif _is_section(value):
            for item in value:
                lines += ["", f"[[{name}]]", *_table(item, name)]
    return lines


def _is_section(value: Any) -> bool:
    if isinstance(value, Mapping):
        return True
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _line(key: str, value: Any) -> str:
    return f"# {_key(key)}: not given" if value is None else f"{_key(key)} = {_value(value)}"


def _key(key: str) -> str:
    plain = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if plain else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, int | float):
        return repr(value)
    return _string(str(value))


def _string(text: str) -> str:
    # JSON's escapes are a subset of TOML's, but for DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
