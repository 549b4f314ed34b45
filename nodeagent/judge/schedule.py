"""When places are armed, by capture time.

Pure: a function of schedule and time alone, so that a replay and a restored judge find the same.  A span runs from the
first moment at which the zone's wall clock shows its start (or a later time, where the clock jumps over it) to the last
one before which it shows its end: of an hour that comes twice, all is armed.

A sample costs two comparisons of integers: the answer is kept until the first place's next change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.schedule import OFF, WEEKDAYS, Schedule, days_of, span_of
from nodeagent.judge.association import Flags
from nodeagent.judge.tracker import Ints

#: Days that are looked at around a time: every span of a week begins within them, whatever its neighbours are.
BEFORE_DAYS: Final = 9
AFTER_DAYS: Final = 8
#: No capture time is later.
END_NS: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Period:
    """A time during which nothing changes.

    Attributes:
        from_ns: capture time of the change before it; 0: there is none within BEFORE_DAYS.
        until_ns: up to here it is known; the next change, or what was looked at ends.
    """

    armed: bool
    from_ns: int
    until_ns: int


class ScheduleClock:
    """A schedule, read."""

    def __init__(self, schedule: Schedule) -> None:
        self._spans = tuple(map(span_of, schedule.weekly))
        self._zone = ZoneInfo(schedule.time_zone)
        calendar = schedule.calendar
        self._off = tuple(map(days_of, calendar.days_off)) if calendar else ()
        self._made_up = tuple(map(days_of, calendar.make_up_days)) if calendar else ()
        self._made_up_as = calendar.make_up_as if calendar else OFF

    def period(self, at_ns: int) -> Period:
        """Whether it is armed at a capture time, since when, and until when for sure."""
        today = datetime.fromtimestamp(at_ns // NS_PER_S, self._zone).date()
        days = [today + timedelta(days=offset) for offset in range(-BEFORE_DAYS, AFTER_DAYS + 1)]
        # Until here spans may reach that began before the first of these days.
        sure_ns = _first_s(days[1], 0, self._zone) * NS_PER_S
        last_ns = _first_s(days[-1], 0, self._zone) * NS_PER_S
        from_ns = 0
        for begin_ns, end_ns in _merged(sorted(self._intervals(days))):
            if at_ns < begin_ns:
                return Period(False, from_ns, min(begin_ns, last_ns))
            if at_ns < end_ns:
                return Period(True, 0 if begin_ns <= sure_ns else begin_ns, min(end_ns, last_ns))
            from_ns = end_ns
        return Period(False, from_ns, last_ns)

    def _intervals(self, days: Sequence[date]) -> Iterator[tuple[int, int]]:
        """Armed spans that begin on these days, (from, to) in ns, not empty."""
        for day in days:
            kind = self._kind_of(day)
            for span in self._spans:
                if kind in span.days:
                    begin_s = _first_s(day, span.start, self._zone)
                    end_s = _last_s(day, span.end, self._zone)
                    if end_s > begin_s:
                        yield begin_s * NS_PER_S, end_s * NS_PER_S

    def _kind_of(self, day: date) -> str:
        """The kind of day, of WEEKDAYS and OFF."""
        if any(first <= day <= last for first, last in self._made_up):
            return self._made_up_as
        if any(first <= day <= last for first, last in self._off):
            return OFF
        return WEEKDAYS[day.weekday()]


class Arming:
    """Which places of a camera are armed.

    Attributes:
        armed: (places,) bool, as of the last `step`.
        quiet: whether some place is not.
    """

    def __init__(self, schedules: Sequence[Schedule | None]) -> None:
        self._clocks: dict[Schedule, ScheduleClock] = {}
        for schedule in schedules:
            if schedule is not None and schedule not in self._clocks:
                self._clocks[schedule] = ScheduleClock(schedule)
        self._schedules = tuple(schedules)
        self.armed: Flags = np.ones(len(schedules), np.bool_)
        self.quiet = False
        self._known_from_ns, self._known_until_ns = (0, 0) if self._clocks else (-1, END_NS)

    def step(self, last_ns: int, sample_ns: int) -> Flags | None:
        """Go on to the sample at `sample_ns`, from the one at `last_ns`.

        Returns:
            (places,) bool, those that are not armed, or were not at some time between the two samples; None: no place.
        """
        if self._known_from_ns <= sample_ns < self._known_until_ns:
            return ~self.armed if self.quiet else None
        from_ns: Ints = np.zeros(len(self._schedules), np.int64)
        self._known_from_ns, self._known_until_ns = sample_ns, END_NS
        found = {schedule: clock.period(sample_ns) for schedule, clock in self._clocks.items()}
        for place, schedule in enumerate(self._schedules):
            if schedule is not None:
                period = found[schedule]
                self.armed[place], from_ns[place] = period.armed, period.from_ns
                self._known_until_ns = min(self._known_until_ns, period.until_ns)
        self.quiet = not self.armed.all()
        lapsed: Flags = ~self.armed | (from_ns > last_ns)
        return lapsed if lapsed.any() else None

    def end_ns(self, place: int, last_ns: int, sample_ns: int) -> int:
        """When a place that lapsed was disarmed, after the sample at `last_ns`; that sample itself if it was not armed
        there either, which is so after a change of its schedule.
        """
        schedule = self._schedules[place]
        if schedule is None:
            return last_ns
        period = self._clocks[schedule].period(last_ns)
        return min(period.until_ns, sample_ns) if period.armed else last_ns


def _merged(intervals: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ordered intervals, those that touch made one."""
    for number, (begin, end) in enumerate(intervals):
        if number == 0:
            open_begin, open_end = begin, end
        elif begin <= open_end:
            open_end = max(open_end, end)
        else:
            yield open_begin, open_end
            open_begin, open_end = begin, end
    if intervals:
        yield open_begin, open_end


def _first_s(day: date, minutes: int, zone: ZoneInfo) -> int:
    """The first second at which the wall clock shows this time, or a later one."""
    wall = _wall(day, minutes)
    first = _moment(wall, zone, fold=0)
    return first if _shown(first, zone) == wall else _jump(wall, zone)


def _last_s(day: date, minutes: int, zone: ZoneInfo) -> int:
    """The first second from which on the wall clock never shows a time before this one."""
    before = _wall(day, minutes) - timedelta(seconds=1)
    last = _moment(before, zone, fold=1)
    # One second before a time that the clock jumps to there is none.
    return last + 1 if _shown(last, zone) == before else _first_s(day, minutes, zone)


def _jump(wall: datetime, zone: ZoneInfo) -> int:
    """When the clock jumps over this time.

    PEP 495: with `fold=1` a time that is skipped is taken with the offset after the jump, so that the moment lies
    before it, with `fold=0` the other way round.
    """
    low, high = _moment(wall, zone, fold=1), _moment(wall, zone, fold=0)
    while high - low > 1:
        middle = (low + high) // 2
        if _shown(middle, zone) >= wall:
            high = middle
        else:
            low = middle
    return high


def _wall(day: date, minutes: int) -> datetime:
    return datetime.combine(day, time()) + timedelta(minutes=minutes)


def _moment(wall: datetime, zone: ZoneInfo, fold: int) -> int:
    return round(wall.replace(tzinfo=zone, fold=fold).timestamp())


def _shown(second: int, zone: ZoneInfo) -> datetime:
    """What the wall clock shows then."""
    return datetime.fromtimestamp(second, zone).replace(tzinfo=None, fold=0)
