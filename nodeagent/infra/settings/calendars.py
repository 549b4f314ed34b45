"""Puts the calendars of a file into the schedules that name them.

Pure.  From here on a rule carries its days off itself: wherever it goes, there is no calendar that it could miss, or
find in another version.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from nodeagent.contract.errors import Fault
from nodeagent.contract.ids import Frozen
from nodeagent.contract.schedule import Calendar
from nodeagent.infra.settings.faults import faults_of


class _Calendars(Frozen):
    calendars: tuple[Calendar, ...] = ()


def calendar_faults(doc: dict[str, Any]) -> list[Fault]:
    """Faults of the calendars alone, for a document of which nothing else is wanted but its cameras."""
    try:
        _Calendars.model_validate(doc)
    except ValidationError as exc:
        return faults_of(exc.errors(include_url=False), Calendar)
    return []


def place_calendars(doc: dict[str, Any]) -> None:
    """Replace each calendar's name in a document's schedules by the calendar, in place.

    A name that no calendar has stays, for validation to name it; so does the calendar that is faulty, and its users are
    left without, so that a fault of it is told once.
    """
    known: dict[str, Any] = {}
    for table in _tables(doc.get("calendars")):
        if isinstance(table.get("name"), str):
            known[table["name"]] = table if _sound(table) else None
    for schedule in _schedules(doc):
        name = schedule.get("calendar")
        if isinstance(name, str) and name in known:
            schedule["calendar"] = known[name]


def _sound(table: dict[str, Any]) -> bool:
    try:
        Calendar.model_validate(table)
    except ValidationError:
        return False
    return True


def _schedules(doc: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for camera in _tables(doc.get("cameras")):
        for rule in _tables(camera.get("rules")):
            if isinstance(rule.get("schedule"), dict):
                yield rule["schedule"]


def _tables(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
