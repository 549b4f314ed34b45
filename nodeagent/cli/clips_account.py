"""Whether every instant of a camera is recorded or accounted for.  Pure.

Recorded time and the ledger's gaps must cover all time from the oldest clip on up to where both are settled.  What is
left is a hole.  A hole before the oldest clip of some disk was perhaps recorded there and has aged out since; one in
which a clip lies unfinished will be closed; any other is time that was lost without anybody saying so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from nodeagent.contract.ids import NS_PER_MS
from nodeagent.infra.gaps import LEAST_GAP_NS
from nodeagent.infra.spans import Span, joined, within

#: Shortest hole that counts, ns: what the ledger calls a gap, and what the rounding of a clip's name may add to it.
LEAST_HOLE_NS = LEAST_GAP_NS + NS_PER_MS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of one camera's main stream.

    Attributes:
        recorded: time in finished clips.
        gaps: time in the ledger.
        unfinished: time in clips that are not closed.
        began_ns: begin of the oldest clip or gap, also of one that nobody asked for; none when there is neither.
        settled_ns: up to here clips and ledger are complete.
        kept_from_ns: before this some disk may have let clips go by age; none when no clip is left.
    """

    recorded: Sequence[Span]
    gaps: Sequence[Span]
    unfinished: Sequence[Span]
    began_ns: int | None
    settled_ns: int
    kept_from_ns: int | None


@dataclass(frozen=True, slots=True)
class DayAccount:
    """One camera's day, or the part of it that is verified; durations in ns.

    Attributes:
        day: of the site's calendar.
        span: what of it was looked at.
        recorded_ns: in clips; what two clips hold counts once.
        gaps_ns: in the ledger.
        both_ns: in both.
        aged: holes in which clips may have been that retention let go.
        unfinished: holes in which a clip lies that is not closed.
        missing: holes that nothing explains.
    """

    day: str
    span: Span
    recorded_ns: int
    gaps_ns: int
    both_ns: int
    aged: tuple[Span, ...]
    unfinished: tuple[Span, ...]
    missing: tuple[Span, ...]

    @property
    def difference_ns(self) -> int:
        """Wall time that is neither recorded nor in the ledger."""
        return self.span.duration_ns - (self.recorded_ns + self.gaps_ns - self.both_ns)


def verified_span(found: Found, from_ns: int | None, to_ns: int) -> Span | None:
    """What of `[from_ns, to_ns)` can be verified; None when nothing is there.

    A camera that has a clip or a gap before `from_ns` owes all time after it, whatever that begins with.  With no
    `from_ns` it begins at the oldest clip, or with the gaps right before it; older entries of the ledger are of time
    whose clips are gone.  Where no clip is left, that is the last run of gaps.
    """
    if found.began_ns is None:
        return None
    if from_ns is not None:
        begin_ns = max(from_ns, found.began_ns)
    else:
        covered = joined([*found.recorded, *found.gaps])
        if not covered:
            return None
        oldest_ns = min((span.from_ns for span in found.recorded), default=covered[-1].from_ns)
        begin_ns = next(span.from_ns for span in covered if span.to_ns > oldest_ns)
    end_ns = min(to_ns, found.settled_ns)
    return Span(begin_ns, end_ns) if end_ns > begin_ns else None


def account(found: Found, span: Span, zone: ZoneInfo) -> list[DayAccount]:
    """The account of each day of the span."""
    recorded, gaps = joined(found.recorded), joined(found.gaps)
    holes = _holes(joined([*recorded, *gaps]), span)
    explained = joined(found.unfinished)
    aged = [hole for hole in holes if found.kept_from_ns is None or hole.to_ns <= found.kept_from_ns]
    rest = [hole for hole in holes if hole not in aged]
    unfinished = [part for hole in rest for part in within(explained, *hole)]
    missing = [part for hole in rest for part in _holes(explained, hole)]
    return [
        DayAccount(
            day=day,
            span=part,
            recorded_ns=_sum(within(recorded, *part)),
            gaps_ns=_sum(within(gaps, *part)),
            both_ns=_sum(s for gap in within(gaps, *part) for s in within(recorded, *gap)),
            aged=tuple(within(aged, *part)),
            unfinished=tuple(within(unfinished, *part)),
            missing=tuple(within(missing, *part)),
        )
        for day, part in _days(span, zone)
    ]


def _holes(covered: Sequence[Span], span: Span) -> list[Span]:
    """What of a span is not covered, spans in order; without the spacing of frames."""
    found, at = [], span.from_ns
    for part in within(covered, *span):
        if part.from_ns - at >= LEAST_HOLE_NS:
            found.append(Span(at, part.from_ns))
        at = max(at, part.to_ns)
    if span.to_ns - at >= LEAST_HOLE_NS:
        found.append(Span(at, span.to_ns))
    return found


def _sum(spans: Iterator[Span] | Sequence[Span]) -> int:
    return sum(span.duration_ns for span in spans)


def _days(span: Span, zone: ZoneInfo) -> Iterator[tuple[str, Span]]:
    """The days of the site's calendar that a span touches, and its part in each."""
    at = span.from_ns
    while at < span.to_ns:
        day = (_EPOCH + timedelta(microseconds=at // 1000)).astimezone(zone).date()
        midnight = datetime.combine(day + timedelta(days=1), datetime.min.time(), tzinfo=zone)
        end = min(span.to_ns, (midnight - _EPOCH) // timedelta(microseconds=1) * 1000)
        yield day.isoformat(), Span(at, end)
        at = end
