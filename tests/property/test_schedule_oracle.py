"""A schedule, against a slow and obvious reading of it: the wall clock is looked at minute by minute."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.contract.schedule import DAY_MINUTES, WEEKDAYS, Calendar, Schedule
from nodeagent.judge.schedule import Arming, ScheduleClock

S = 1_000_000_000
MINUTE = timedelta(minutes=1)
#: Zones with the days on which something odd happens: clocks put forward and back, by half an hour, just after
#: midnight; a leap day; a day that a country left out.
ODD = [
    ("Europe/Berlin", date(2026, 3, 29)),
    ("Europe/Berlin", date(2026, 10, 25)),
    ("America/New_York", date(2026, 11, 1)),
    ("America/Sao_Paulo", date(2018, 11, 4)),
    ("Australia/Lord_Howe", date(2026, 4, 5)),
    ("Australia/Lord_Howe", date(2026, 10, 4)),
    ("America/St_Johns", date(2006, 10, 29)),
    ("Asia/Shanghai", date(2026, 10, 10)),
    ("UTC", date(2028, 2, 29)),
    ("Pacific/Apia", date(2011, 12, 30)),
]

_minutes = st.one_of(st.sampled_from([0, 60, 120, 150, 180, 1380]), st.integers(0, DAY_MINUTES - 1))


@st.composite
def spans(draw) -> tuple[frozenset[str], int, int]:
    start = draw(_minutes)
    end = draw(st.one_of(st.just(DAY_MINUTES), _minutes).filter(lambda end: end != start))
    return draw(st.frozensets(st.sampled_from([*WEEKDAYS, "off"]), min_size=1)), start, end


def written(days: frozenset[str], start: int, end: int) -> str:
    return f"{','.join(sorted(days))} {start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"


def kind_of(day: date, off: set[date], made_up: set[date]) -> str:
    if day in made_up:
        return "fri"
    return "off" if day in off else WEEKDAYS[day.weekday()]


def armed_minutes(zone: str, middle: date, kinds, week) -> dict[int, bool]:
    """Unix minutes of two days around `middle`, and whether each is armed."""
    midnight = datetime.combine(middle, time(), UTC)
    instants = [midnight + MINUTE * number for number in range(-5 * DAY_MINUTES, 5 * DAY_MINUTES)]
    shown = [instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for instant in instants]
    armed = [False] * len(instants)
    for offset in range(-4, 5):
        day = middle + timedelta(days=offset)
        for days, start, end in week:
            if kinds(day) in days:
                begins = datetime.combine(day, time()) + MINUTE * start
                ends = datetime.combine(day, time()) + MINUTE * (end if end > start else end + DAY_MINUTES)
                first = next((i for i, wall in enumerate(shown) if wall >= begins), len(shown))
                last = max((i for i, wall in enumerate(shown) if wall < ends), default=-1)
                armed[first : last + 1] = [True] * max(0, last + 1 - first)
    wanted = range(4 * DAY_MINUTES, 6 * DAY_MINUTES)
    return {int(instants[i].timestamp()) // 60: armed[i] for i in wanted}


@settings(max_examples=30, deadline=None)
@given(
    odd=st.sampled_from(ODD),
    week=st.lists(spans(), min_size=1, max_size=3),
    off=st.sets(st.integers(-3, 2)),
    made_up=st.sets(st.integers(-3, 2), max_size=2),
)
def test_a_schedule_is_armed_when_the_wall_clock_says_so(odd, week, off, made_up):
    zone, middle = odd
    days_off = {middle + timedelta(days=day) for day in off}
    make_ups = {middle + timedelta(days=day) for day in made_up}
    schedule = Schedule(
        time_zone=zone,
        weekly=tuple(written(*span) for span in week),
        calendar=Calendar(
            name="plant",
            days_off=tuple(map(str, sorted(days_off))),
            make_up_days=tuple(map(str, sorted(make_ups))),
            make_up_as="fri",
        ),
    )
    expected = armed_minutes(zone, middle, lambda day: kind_of(day, days_off, make_ups), week)
    arming, clock, last_ns = Arming([None, schedule]), ScheduleClock(schedule), 0
    for minute, armed in expected.items():
        at_ns = minute * 60 * S
        lapsed = arming.step(last_ns, at_ns)
        assert list(arming.armed) == [True, armed], datetime.fromtimestamp(minute * 60, ZoneInfo(zone))
        if last_ns:
            assert (lapsed is not None and bool(lapsed[1])) == (not armed or not expected[minute - 1])
            assert lapsed is None or not lapsed[0]
        last_ns = at_ns
    period = clock.period(last_ns)
    assert period.from_ns <= last_ns < period.until_ns
    assert clock.period(period.until_ns - 1).armed is period.armed
    if period.from_ns:
        assert clock.period(period.from_ns - 1).armed is not period.armed
