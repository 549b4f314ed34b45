"""Spans of recorded time.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from nodeagent.infra.gaps import LEAST_GAP_NS


class Span(NamedTuple):
    """Time that was recorded without a hole: capture time, UTC ns."""

    from_ns: int
    to_ns: int

    @property
    def duration_ns(self) -> int:
        """Its length."""
        return self.to_ns - self.from_ns


def joined(spans: Iterable[Span]) -> list[Span]:
    """The same time in as few spans as can be, in order; holes that the ledger would not tell of are closed."""
    found: list[Span] = []
    for from_ns, to_ns in sorted(spans):
        if not found or from_ns - found[-1][1] >= LEAST_GAP_NS:
            found.append(Span(from_ns, to_ns))
        elif to_ns > found[-1][1]:
            found[-1] = Span(found[-1][0], to_ns)
    return found


def within(spans: Iterable[Span], from_ns: int, to_ns: int) -> list[Span]:
    """What of the spans lies in `[from_ns, to_ns)`."""
    cut = (Span(max(span.from_ns, from_ns), min(span.to_ns, to_ns)) for span in spans)
    return [span for span in cut if span.to_ns > span.from_ns]
