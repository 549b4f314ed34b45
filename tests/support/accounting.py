"""The account of a camera's time: what was recorded, what the gap ledger tells, and whether both together are all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nodeagent.contract.errors import BadMedia
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.gaps import Gap
from nodeagent.infra.storage import StoredClip
from tests.support.media import decode_all

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Account:
    """A camera's seconds from its first to its last moment.

    Attributes:
        wall_s: all of it.
        recorded_s: in clips.
        told_s: in the ledger.
        untold_s: in neither: must be nothing but the spacing of frames at seams.
        twice_s: in two clips, two gaps, or in both.
        holes: seams longer than `seam_s`, as (from, to), ns.
    """

    wall_s: float
    recorded_s: float
    told_s: float
    untold_s: float
    twice_s: float
    holes: tuple[Span, ...]


def account(clips: Iterable[StoredClip], gaps: Iterable[Gap], seam_s: float = 0.0) -> Account:
    """Add up a camera's clips and gaps; a seam of up to `seam_s` is the spacing of frames, not a hole."""
    recorded = [(clip.clip.start_ns, clip.end_ns) for clip in clips]
    told = [(gap.from_ns, gap.to_ns) for gap in gaps]
    spans, holes, twice_ns = sorted(recorded + told), [], 0
    reach_ns = spans[0][0] if spans else 0
    for start_ns, end_ns in spans:
        if start_ns - reach_ns > seam_s * NS_PER_S:
            holes.append((reach_ns, start_ns))
        twice_ns += max(0, min(reach_ns, end_ns) - start_ns)
        reach_ns = max(reach_ns, end_ns)
    return Account(
        wall_s=(reach_ns - spans[0][0]) / NS_PER_S if spans else 0.0,
        recorded_s=length_s(recorded),
        told_s=length_s(told),
        untold_s=length_s(holes),
        twice_s=twice_ns / NS_PER_S,
        holes=tuple(holes),
    )


def length_s(spans: Sequence[Span]) -> float:
    """Sum of the lengths."""
    return sum(end_ns - start_ns for start_ns, end_ns in spans) / NS_PER_S


def not_recorded(clips: Sequence[StoredClip], from_ns: int, to_ns: int) -> float:
    """Seconds of `[from_ns, to_ns)` that lie in no clip."""
    reach_ns, lost_ns = from_ns, 0
    for start_ns, end_ns in sorted((clip.clip.start_ns, clip.end_ns) for clip in clips):
        lost_ns += max(0, min(start_ns, to_ns) - reach_ns)
        reach_ns = max(reach_ns, min(end_ns, to_ns))
    return (lost_ns + max(0, to_ns - reach_ns)) / NS_PER_S


def not_decoding(clips: Iterable[StoredClip]) -> list[str]:
    """Names of clips of which any frame does not decode, or that hold none."""
    bad = []
    for clip in clips:
        try:
            decode_all(clip.path)
        except BadMedia as exc:
            bad.append(f"{clip.path.name}: {exc}")
    return bad
