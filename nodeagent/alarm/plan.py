"""Which clips a replay is made of, and whether to wait for more.

Pure: the clips on disk, the window and the time in; a decision out.  It is asked anew twice a second and after every
restart, so it keeps no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nodeagent.contract.clip import ClipId
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S

#: A hole between two clips up to this length is no gap, ns: names round a clip's length to milliseconds, and a slow
#: camera's next frame is up to that far away.
SEAM_NS = 500 * NS_PER_MS
#: A clip's length stands rounded to milliseconds in its name: it may be this much shorter, ns.
ROUNDING_NS = NS_PER_MS


@dataclass(frozen=True, slots=True)
class Piece:
    """A finished clip on disk: camera time from `start_ns` until before `end_ns`.

    `stream` is what must be equal for two clips to be joined without encoding; none while it was not looked at.
    """

    clip: ClipId
    start_ns: int
    end_ns: int
    stream: object = None


@dataclass(frozen=True, slots=True)
class Window:
    """What a replay should show, and the confirming instant in it, UTC ns."""

    from_ns: int
    to_ns: int
    centre_ns: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Not all clips of the window are there yet."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Make the replay of these clips, in this order; none of them: there is nothing to show."""

    pieces: tuple[Piece, ...]


def decide(pieces: Iterable[Piece], window: Window, now_ns: int, patience_ns: int) -> Wait | Cut:
    """Cut when clips reach the window's end; wait for that until `patience_ns` past it by the wall clock.

    That the window is over is told by its clips, not by the wall clock, which may have been stepped back meanwhile.  A
    hole before a later clip is final: a capture announces what it repaired before it records on.  So only the end is
    waited for.
    """
    used = choose(pieces, window)
    reached = bool(used) and used[-1].end_ns >= window.to_ns + ROUNDING_NS
    if not reached and now_ns < window.to_ns + patience_ns:
        return Wait()
    return Cut(tuple(used))


def why_partial(spans: Sequence[tuple[int, int]], window: Window, why: Sequence[str] = ()) -> tuple[str, int]:
    """Why a replay that shows these spans (from, to; ordered) does not cover its window, and how much of it is missing,
    ns; an empty reason: it covers it.  `why` is what is known beforehand.
    """
    gaps = gaps_in(spans, window)
    reasons = list(why)
    if not spans:
        reasons.append("no video of the window is on disk")
    elif gaps:
        reasons.append("no video for " + ", ".join(_name(gap, window) for gap in gaps))
    return "; ".join(reasons), sum(end - start for start, end in gaps)


def choose(pieces: Iterable[Piece], window: Window) -> list[Piece]:
    """The clips that show the window, ordered, each one adding something: two owners may have recorded the same time.

    A clip of the epoch in use is preferred, so that a replay does not change recordings without need.
    """
    enough_ns = window.to_ns + ROUNDING_NS
    inside = [piece for piece in pieces if piece.end_ns > window.from_ns and piece.start_ns <= enough_ns]
    inside.sort(key=lambda piece: (piece.start_ns, -piece.end_ns, -piece.clip.epoch))
    chosen: list[Piece] = []
    while inside:
        reach_ns = chosen[-1].end_ns if chosen else window.from_ns
        inside = [piece for piece in inside if (_adds(piece, reach_ns) if chosen else piece.end_ns > reach_ns)]
        near = [piece for piece in inside if piece.start_ns <= reach_ns + (SEAM_NS if chosen else 0)]
        if near:
            epoch = chosen[-1].clip.epoch if chosen else 0
            chosen.append(max(near, key=lambda piece: (piece.clip.epoch == epoch, piece.end_ns, piece.clip.epoch)))
        elif inside:
            chosen.append(inside[0])
        if chosen and chosen[-1].end_ns >= enough_ns:
            break
    return chosen


def _adds(piece: Piece, reach_ns: int) -> bool:
    """Whether the clip shows something after `reach_ns`; a mere tail of one that overlaps is not worth a change."""
    return piece.end_ns > reach_ns and (piece.start_ns >= reach_ns - SEAM_NS or piece.end_ns > reach_ns + SEAM_NS)


def gaps_in(spans: Sequence[tuple[int, int]], window: Window) -> list[tuple[int, int]]:
    """Parts of the window, longer than a seam within it, that the spans do not cover."""
    gaps = []
    reach_ns = window.from_ns
    for start_ns, end_ns in spans:
        allowed_ns = SEAM_NS if reach_ns > window.from_ns else ROUNDING_NS
        if start_ns - reach_ns > allowed_ns:
            gaps.append((reach_ns, min(start_ns, window.to_ns)))
        reach_ns = max(reach_ns, end_ns)
    if window.to_ns - reach_ns > ROUNDING_NS:
        gaps.append((reach_ns, window.to_ns))
    return gaps


def one_stream(pieces: Sequence[Piece], window: Window) -> list[Piece]:
    """Only the run of pieces around the confirming instant that can be joined: a camera may have changed its codec or
    size within the window.
    """
    if not pieces:
        return []
    first = last = min(range(len(pieces)), key=lambda i: _distance(pieces[i], window.centre_ns))
    stream = pieces[first].stream
    while first > 0 and pieces[first - 1].stream == stream:
        first -= 1
    while last + 1 < len(pieces) and pieces[last + 1].stream == stream:
        last += 1
    return list(pieces[first : last + 1])


def _distance(piece: Piece, at_ns: int) -> int:
    return max(piece.start_ns - at_ns, at_ns - piece.end_ns + 1, 0)


def _name(gap: tuple[int, int], window: Window) -> str:
    start, end = ((side - window.from_ns) / NS_PER_S for side in gap)
    return f"{end - start:.1f} s (from {start:.1f} to {end:.1f} s of the window)"
