"""Times of the command line: the site's zone for people, UTC ns inside."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from nodeagent.infra.times import local_time, parse_time, span

SHANGHAI, BERLIN = ZoneInfo("Asia/Shanghai"), ZoneInfo("Europe/Berlin")
#: 2026-11-24 04:31:09 UTC.
NOW_NS = 1_795_494_669_000_000_000


def test_local_time_is_the_sites() -> None:
    assert local_time(NOW_NS, SHANGHAI) == "2026-11-24 12:31:09"
    assert local_time(NOW_NS, ZoneInfo("UTC")) == "2026-11-24 04:31:09"


def test_both_hours_of_a_clock_set_back_are_told_apart_by_utc() -> None:
    first, second = 1_792_888_200_000_000_000, 1_792_891_800_000_000_000
    assert local_time(first, BERLIN) == local_time(second, BERLIN) == "2026-10-25 02:30:00"
    assert parse_time("2026-10-25 02:30:00+02:00", BERLIN, NOW_NS) == first
    assert parse_time("2026-10-25 02:30:00+01:00", BERLIN, NOW_NS) == second


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-11-24 12:31:09", NOW_NS),
        ("2026-11-24T04:31:09+00:00", NOW_NS),
        ("12:31:09", NOW_NS),
        ("12:31", NOW_NS - 9_000_000_000),
        ("10m", NOW_NS - 600_000_000_000),
        ("1.5h", NOW_NS - 5_400_000_000_000),
        ("0s", NOW_NS),
        ("2026-11-24", NOW_NS - (12 * 3600 + 31 * 60 + 9) * 1_000_000_000),
    ],
)
def test_parse_time(text: str, ns: int) -> None:
    assert parse_time(text, SHANGHAI, NOW_NS) == ns


@pytest.mark.parametrize("text", ["", "soon", "10 parsecs", "25:00", "2026-13-01", "-5m"])
def test_parse_time_says_what_it_expects(text: str) -> None:
    with pytest.raises(ValueError, match="expected `2026-11-24 08:30`"):
        parse_time(text, SHANGHAI, NOW_NS)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.9, "59 s"), (65, "1 min 05 s"), (7800, "2 h 10 min"), (273_600, "3 d 4 h"), (-3, "0 s")],
)
def test_span(seconds: float, text: str) -> None:
    assert span(seconds) == text
