"""What processes told in their logs of JSON lines: who did what when, to the millisecond."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        at_ns: when it was written, UTC, rounded to milliseconds.
        event: its name; empty when it has none.
        fields: all of it.
    """

    at_ns: int
    event: str
    fields: Mapping[str, Any]

    def says(self, event: str, **fields: object) -> bool:
        """Whether it tells of this event with these fields."""
        return self.event == event and all(self.fields.get(name) == value for name, value in fields.items())


def read_lines(path: Path) -> list[Line]:
    """All lines of a log that are JSON, in the order in which they were written."""
    found = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            doc = json.loads(text)
            at_ns = round(datetime.fromisoformat(doc["time"].replace("Z", "+00:00")).timestamp() * 1000) * 1_000_000
        except (ValueError, TypeError, KeyError):
            # What a library printed, or the end of a line whose writer was killed.
            continue
        found.append(Line(at_ns, str(doc.get("event", "")), doc))
    return found


def first(lines: Iterable[Line], event: str, from_ns: int, **fields: object) -> Line | None:
    """The first line of this event with these fields, from a moment on."""
    found = (line for line in lines if line.at_ns >= from_ns and line.says(event, **fields))
    return min(found, key=lambda line: line.at_ns, default=None)
