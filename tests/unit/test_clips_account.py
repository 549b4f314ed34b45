"""Recorded time and gaps against wall time: what closes, what does not, and what explains it."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from nodeagent.cli.clips_account import DayAccount, Found, account, verified_span
from nodeagent.infra.spans import Span

S = 1_000_000_000
#: 2026-11-24T12:00:00Z.
T = 1_795_521_600 * S
UTC, SHANGHAI = ZoneInfo("UTC"), ZoneInfo("Asia/Shanghai")


def spans(*pairs: tuple[float, float]) -> list[Span]:
    return [Span(T + round(a * S), T + round(b * S)) for a, b in pairs]


def found(
    recorded: list[Span], gaps: list[Span], unfinished: list[Span] | None = None, kept_s: float | None = 0.0
) -> Found:
    begins, ends = zip(*recorded, *gaps, strict=True) if recorded or gaps else ((), ())
    kept_ns = None if kept_s is None else T + round(kept_s * S)
    return Found(recorded, gaps, unfinished or [], min(begins, default=None), max(ends, default=0), kept_ns)


def one_day(what: Found, zone: ZoneInfo = UTC) -> DayAccount:
    span = verified_span(what, None, 2**62)
    assert span is not None
    (day,) = account(what, span, zone)
    return day


def test_clips_and_gaps_that_follow_each_other_close() -> None:
    day = one_day(found(spans((0, 10), (10.05, 20), (30, 40)), spans((20, 30), (40, 45))))
    assert (day.day, day.span.duration_ns, day.recorded_ns, day.gaps_ns) == ("2026-11-24", 45 * S, 30 * S, 15 * S)
    assert (day.difference_ns, day.missing, day.aged, day.both_ns) == (0, (), (), 0)


def test_a_hole_is_named_with_its_place() -> None:
    day = one_day(found(spans((0, 10), (12, 20), (20.1005, 30)), []))
    assert day.missing == tuple(spans((10, 12)))
    assert day.difference_ns == 2 * S + S * 1005 // 10_000, "the spacing of frames is no hole, but no recording either"


def test_what_two_owners_recorded_counts_once_and_what_is_in_both_is_told() -> None:
    day = one_day(found(spans((0, 10), (5, 20)), spans((18, 30))))
    assert (day.recorded_ns, day.gaps_ns, day.both_ns) == (20 * S, 12 * S, 2 * S)
    assert (day.difference_ns, day.missing) == (0, ())


def test_what_aged_out_of_a_disk_is_no_loss_and_older_ledger_is_not_looked_at() -> None:
    # One disk holds clips from 100 s on, another one from 150 s on; the ledger begins long before.
    what = found(spans((100, 120), (150, 200)), spans((0, 5), (90, 100), (120, 130)), kept_s=150)
    assert verified_span(what, None, 2**62) == Span(T + 90 * S, T + 200 * S)
    day = one_day(what)
    assert (day.aged, day.missing) == (tuple(spans((130, 150))), ())
    older = verified_span(what, T - 500 * S, 2**62)
    assert older == Span(T, T + 200 * S)
    (day,) = account(what, older, UTC)
    assert day.aged == tuple(spans((5, 90), (130, 150)))


def test_where_no_clip_is_left_the_last_run_of_gaps_is_looked_at() -> None:
    what = found([], spans((0, 5), (50, 60), (60, 70)), kept_s=None)
    assert verified_span(what, None, 2**62) == Span(T + 50 * S, T + 70 * S)
    assert verified_span(found([], []), None, 2**62) is None
    assert verified_span(what, T + 80 * S, 2**62) is None


def test_a_clip_that_is_not_closed_explains_its_own_time_only() -> None:
    day = one_day(found(spans((0, 10), (30, 40)), [], spans((12, 25))))
    assert day.unfinished == tuple(spans((12, 25)))
    assert day.missing == tuple(spans((10, 12), (25, 30)))


def test_only_what_is_settled_is_looked_at() -> None:
    what = found(spans((0, 10)), spans((10, 15)))
    assert verified_span(what, None, T + 100 * S) == Span(T, T + 15 * S)
    assert verified_span(what, T + 2 * S, T + 12 * S) == Span(T + 2 * S, T + 12 * S)


def test_a_hole_at_which_the_asked_time_begins_or_which_fills_it_is_one() -> None:
    # Recorded from 0 to 10 and from 20 to 30; of that a question for part of the time sees what lies in it.
    for seen, from_s, to_s, hole in (
        (spans((5, 10)), 5, 15, (10, 15)),
        (spans((20, 25)), 12, 25, (12, 20)),
        ([], 12, 15, (12, 15)),
    ):
        what = Found(seen, [], [], began_ns=T, settled_ns=T + 30 * S, kept_from_ns=T)
        span = verified_span(what, T + from_s * S, T + to_s * S)
        assert span == Span(T + from_s * S, T + to_s * S)
        (day,) = account(what, span, UTC)
        assert day.missing == tuple(spans(hole))
    assert verified_span(what, T - 10 * S, T) is None, "before recording began"


def test_days_are_those_of_the_site() -> None:
    what = found(spans((0, 10 * 3600)), [])
    span = verified_span(what, None, 2**62)
    assert span is not None
    # Noon in UTC is 20:00 in Shanghai.
    days = account(what, span, SHANGHAI)
    assert [(day.day, day.recorded_ns // (3600 * S)) for day in days] == [("2026-11-24", 4), ("2026-11-25", 6)]
    assert sum(day.span.duration_ns for day in days) == 10 * 3600 * S
