"""The demo's ledger: what every camera should have given, and what was judged.

What is expected is found anew from the clips on disk, by the same pure rule that chose the samples, not taken from the
counters of the stage that is being checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CameraLedger:
    """One camera's account.

    Attributes:
        clips_made: finished clips on disk.
        clips_announced: clips whose task the broker confirmed, counted once each.
        clips_judged: clips in the judge's guarded state, counted once each.
        clips_twice: clips that reached the judge more than once and were refused.
        samples_expected: samples that the clips on disk hold.
        samples_judged: samples in the judge's guarded state.
        gap_s: seconds not recorded.
        gap_why: reasons with their seconds.
    """

    camera_id: str
    clips_made: int
    clips_announced: int
    clips_judged: int
    clips_twice: int
    samples_expected: int
    samples_judged: int
    gap_s: float
    gap_why: str

    @property
    def balanced(self) -> bool:
        """Whether nothing is missing and nothing was counted twice."""
        clips = self.clips_made == self.clips_announced == self.clips_judged
        return clips and self.samples_expected == self.samples_judged


def balanced(ledger: Iterable[CameraLedger]) -> bool:
    """Whether something was recorded and every camera's account agrees."""
    rows = list(ledger)
    return any(row.clips_made for row in rows) and all(row.balanced for row in rows)


def gap_summary(gaps: Sequence[tuple[str, float]]) -> tuple[float, str]:
    """Seconds in all and `reason 1.2 s, reason 0.4 s` from (reason, seconds) pairs."""
    by_reason: dict[str, float] = {}
    for reason, seconds in gaps:
        by_reason[reason] = by_reason.get(reason, 0.0) + seconds
    ordered = sorted(by_reason.items(), key=lambda item: -item[1])
    return sum(by_reason.values()), ", ".join(f"{reason} {seconds:.1f} s" for reason, seconds in ordered)
