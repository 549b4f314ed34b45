"""When a rule is armed: spans of a week on the clock of a place, and calendars of days off and make-up days.

A span belongs to the day on which it begins and may end on the next one.  What kind of day a date is: a weekday by its
name; on a day off `off`, whatever its name; on a make-up day (a day that is worked in place of one that is off) the
weekday that its calendar states, also when the date lies within days off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from nodeagent.contract.ids import FrozenStrict, ModelName

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: Final[tuple[Weekday, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: Kind of day that a day off is.
OFF: Final = "off"
DAY_MINUTES: Final = 24 * 60

_SPAN: Final = re.compile(r"^([a-z]{3}(?:[-,][a-z]{3})*) ([0-2]\d):([0-5]\d)-([0-2]\d):([0-5]\d)$")
_SPAN_EXPECTED: Final = (
    'expected days and times, such as "mon-fri 22:00-06:00", "sat,sun 00:00-24:00" or "off 00:00-24:00"'
)
_DAY: Final = re.compile(r"^\d{4}-\d{2}-\d{2}$")


@dataclass(frozen=True, slots=True)
class Span:
    """One span of the week.

    Attributes:
        days: kinds of day on which it begins, of WEEKDAYS and OFF.
        start: minutes after that day's midnight on the wall clock.
        end: the same; over DAY_MINUTES when it ends on the next day.
    """

    days: frozenset[str]
    start: int
    end: int


def span_of(text: str) -> Span:
    """Read a span as a person writes it.

    Raises:
        PydanticCustomError: it is none.
    """
    found = _SPAN.match(text)
    if not found:
        raise PydanticCustomError("schedule_span", _SPAN_EXPECTED)
    days = frozenset(day for part in found[1].split(",") for day in _days_of(part))
    start, end = int(found[2]) * 60 + int(found[3]), int(found[4]) * 60 + int(found[5])
    if start >= DAY_MINUTES or end > DAY_MINUTES:
        raise PydanticCustomError("schedule_span", "expected times from 00:00 to 24:00")
    if start == end:
        raise PydanticCustomError("schedule_span", "expected two different times; a whole day is 00:00-24:00")
    return Span(days, start, end if end > start else end + DAY_MINUTES)


def _days_of(part: str) -> tuple[str, ...]:
    first, _, last = part.partition("-")
    if not last and first in (*WEEKDAYS, OFF):
        return (first,)
    if first not in WEEKDAYS or last not in WEEKDAYS:
        raise PydanticCustomError("schedule_span", _SPAN_EXPECTED)
    begin, end = WEEKDAYS.index(first), WEEKDAYS.index(last)
    return tuple(WEEKDAYS[day % 7] for day in range(begin, (end if end >= begin else end + 7) + 1))


def _date_text(value: Any) -> Any:
    """TOML has dates of its own: `2026-10-01` without quotes is one."""
    return value.isoformat() if type(value) is date else value


def days_of(text: str) -> tuple[date, date]:
    """First and last day of `2026-10-01` or `2026-10-01/2026-10-07`.

    Raises:
        PydanticCustomError: it is neither.
    """
    first, slash, last = text.partition("/")
    try:
        if not _DAY.match(first) or (slash and not _DAY.match(last)):
            raise ValueError("another form")
        begin = date.fromisoformat(first)
        end = date.fromisoformat(last) if slash else begin
    except ValueError:
        raise PydanticCustomError(
            "schedule_days", 'expected a day or first and last day: "2026-10-01" or "2026-10-01/2026-10-07"'
        ) from None
    if end < begin:
        raise PydanticCustomError("schedule_days", "expected the last day not before the first")
    return begin, end


def _checked_span(text: str) -> str:
    span_of(text)
    return text


def _checked_days(text: str) -> str:
    days_of(text)
    return text


def _no_bare_name(value: Any) -> Any:
    if isinstance(value, str):
        raise PydanticCustomError(
            "calendar_name", "expected a calendar as a table, or in a file the name of one under [[calendars]]"
        )
    return value


SpanText = Annotated[str, AfterValidator(_checked_span)]
DaysText = Annotated[str, BeforeValidator(_date_text), AfterValidator(_checked_days)]


class Calendar(FrozenStrict):
    """`[[calendars]]`: days off, and days that are worked in their place."""

    #: Name by which schedules refer to it.
    name: ModelName
    #: Days on which only spans of `off` begin: `"2026-10-01"`, or first and last: `"2026-10-01/2026-10-07"`.
    days_off: Annotated[tuple[DaysText, ...], Field(max_length=1000)] = ()
    #: Days that count as `make_up_as` whatever their name, also within days off.
    make_up_days: Annotated[tuple[DaysText, ...], Field(max_length=1000)] = ()
    #: The weekday that a make-up day counts as.
    make_up_as: Weekday = "mon"


class Schedule(FrozenStrict):
    """When a rule is armed."""

    #: IANA name of the zone whose wall clock the times are of, for example `Asia/Shanghai`.
    time_zone: str
    #: Spans in which the rule is armed: days (`mon` to `sun`, ranges, `off` for the calendar's days off) and times, as
    #: in `"mon-fri 22:00-06:00"`; one that ends before it begins ends on the next day.
    weekly: Annotated[tuple[SpanText, ...], Field(min_length=1, max_length=64)]
    #: Name of a calendar under `[[calendars]]`, or the calendar itself; none: every day is what its name says.
    calendar: Annotated[Calendar | None, BeforeValidator(_no_bare_name)] = None

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, LookupError):
            # Nor a name with a path in it, which zoneinfo refuses as a ValueError, nor a folder, an OSError.
            raise PydanticCustomError(
                "time_zone", "expected an IANA time zone, such as Asia/Shanghai or Europe/Berlin"
            ) from None
        return name
