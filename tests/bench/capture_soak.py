"""Twenty RTSP cameras, ten of them with a sub-stream, for a quarter of an hour in which something always goes wrong.

Streams stall, are cut, get wrong passwords and other sizes (`_street`).  At the end every second of each camera must be
in a clip or in the gap ledger, by the computation of `nodeagent clips --verify`, and every clip must decode.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from nodeagent.cli.clips_verify import Verified, Wanted, decode_fault, verify
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.states import State
from nodeagent.infra.spans import Span, joined, within
from nodeagent.infra.storage import Storage, StoredClip
from tests.bench._street import FPS, SAMPLE_FPS, Street
from tests.bench.harness import Result, result
from tests.support.eventually import eventually
from tests.support.recording import FOREVER_NS, RecordingNode

CAMERAS, WITH_SUB, SECONDS = 20, 10, 900.0
QUICK_CAMERAS, QUICK_WITH_SUB, QUICK_SECONDS = 4, 2, 60.0
#: A fault begins every so many seconds, and lasts at most so long.
EVERY_S, LONGEST_S = 3.0, 15.0
QUICK_LONGEST_S = 6.0
#: Seconds for the cameras to come back when all is well again.
BACK_S = 60.0
#: Quickly tried again, so that there is more of everything in the time.
STALL_S = 3.0
CAPTURE = f"stall_timeout_s = {STALL_S}\nreconnect_min_s = 0.5\nreconnect_max_s = 4"
#: What may be missing at each end of a camera's account: twenty processes start, and stop, on a small machine, seconds.
EDGE_S = 10.0
#: Where the analysis goes from one stream to the other: a look each second, and the next key frame, seconds.
HANDOVER_S = 3.0


def run(quick: bool) -> Iterator[Result]:
    """Let it go wrong, let it recover, and count."""
    cameras, with_sub, seconds = (
        (QUICK_CAMERAS, QUICK_WITH_SUB, QUICK_SECONDS) if quick else (CAMERAS, WITH_SUB, SECONDS)
    )
    longest_s = QUICK_LONGEST_S if quick else LONGEST_S
    with (
        tempfile.TemporaryDirectory() as folder,
        Street(Path(folder), cameras, with_sub, longest_s) as street,
        RecordingNode(CAPTURE) as node,
    ):
        street.node = node
        begun_ns, begun_s = time.time_ns(), time.monotonic()
        street.serve()
        for camera in street.cameras:
            node.capturing(camera.name, within_s=120)
        street.trouble(begun_s + seconds, EVERY_S)
        back = _all_back(node, [camera.name for camera in street.cameras])
        node.stop()
        ended_ns = time.time_ns()
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(street.happened.items()))
        yield result("faults", sum(street.happened.values()), "faults", "> 0", faults)
        yield result(
            "cameras_not_back", cameras - back, "cameras", "== 0", f"{BACK_S:.0f} s after the last fault was over"
        )
        yield from _accounts(node, street, begun_ns, ended_ns)
        yield from _clips(node, street)
        yield from _samples(node, street)


def _all_back(node: RecordingNode, names: Sequence[str]) -> int:
    def back() -> int:
        rows = [node.agent.row(f"capture:{name}") for name in names]
        return sum(row is not None and row.state is State.CAPTURING for row in rows)

    try:
        eventually(lambda: back() == len(names), within_s=BACK_S, every_s=0.5)
    except AssertionError:
        return back()
    # Some clips of all being well.
    time.sleep(10)
    return len(names)


def _accounts(node: RecordingNode, street: Street, begun_ns: int, ended_ns: int) -> Iterator[Result]:
    settings = node.agent.settings
    names = [camera.name for camera in street.cameras]
    # The end is given, so that a ledger or clips that stop too early show.
    done = list(verify(settings, names, Wanted(None, FOREVER_NS), ZoneInfo("UTC"), decode=True))
    missing = {one.camera_id: _missing_s(one) for one in done}
    worst = max(missing, key=missing.__getitem__)
    wall_s, recorded_s, gaps_s, both_s = (
        sum(getattr(day, name) if name != "wall" else day.span.duration_ns for one in done for day in one.days)
        / NS_PER_S
        for name in ("wall", "recorded_ns", "gaps_ns", "both_ns")
    )
    gaps = Counter[str]()
    for name in names:
        for gap in node.gaps(name):
            gaps[gap.reason.value] += gap.duration_ns
    reasons = ", ".join(f"{reason} {ns / NS_PER_S:.0f} s" for reason, ns in gaps.most_common())
    yield result("wall_s", round(wall_s, 1), "s", "", f"of {len(names)} cameras, {len(street.cameras)} main streams")
    yield result("recorded_s", round(recorded_s, 1), "s", "> 0", "in clips of the main stream")
    yield result("ledger_s", round(gaps_s, 1), "s", "> 0", reasons)
    yield result("missing_s", round(sum(missing.values()), 2), "s", "== 0", f"in neither; the worst camera {worst}")
    yield result("in_both_s", round(both_s, 2), "s", f"<= {0.1 * len(names):g}", "recorded and told as a gap")
    edges = [EDGE_S * 10 if one.span is None else _edges_s(one, begun_ns, ended_ns) for one in done]
    detail = "the worst camera: from the start of the node to its account, and from there to the stop"
    yield result("edges_s", round(max(edges), 2), "s", f"<= {2 * EDGE_S:g}", detail)
    broken = [f"{stored.path.name}: {why}" for one in done for stored, why in one.broken]
    yield result("clips_not_decoding", len(broken), "clips", "== 0", "; ".join(broken[:3]) or "of the main streams")


def _missing_s(one: Verified) -> float:
    return sum(span.duration_ns for day in one.days for span in (*day.missing, *day.unfinished)) / NS_PER_S


def _edges_s(one: Verified, begun_ns: int, ended_ns: int) -> float:
    assert one.span is not None
    return (one.span.from_ns - begun_ns + ended_ns - one.span.to_ns) / NS_PER_S


def _clips(node: RecordingNode, street: Street) -> Iterator[Result]:
    storage, main, sub = Storage(node.agent.settings.pools), 0, list[StoredClip]()
    never, alone, bare_s = list[str](), 0, list[float]()
    for camera in street.cameras:
        recorded = storage.clips(camera.name, 0, FOREVER_NS)
        analysed = storage.clips(camera.name, 0, FOREVER_NS, stream="analyse")
        main, sub = main + len(recorded), sub + analysed
        on_disk = {("record", clip.clip.epoch, clip.clip.start_ns) for clip in recorded}
        on_disk |= {("analyse", clip.clip.epoch, clip.clip.start_ns) for clip in analysed}
        told = {(t.stream, t.epoch, t.start_ns) for t in node.tasks if t.camera_id == camera.name}
        alone += len(told - on_disk)
        left = [("record", clip) for clip in recorded if camera.sub is None]
        left += [("analyse", clip) for clip in analysed]
        tasks = [task for task in node.tasks if task.camera_id == camera.name and task.stream == "record"]
        stood_in = joined(Span(task.start_ns, task.end_ns) for task in tasks)
        away = [Span(gap.from_ns, gap.to_ns) for gap in node.gaps(camera.name)]
        for stream, clip in left:
            if (stream, clip.clip.epoch, clip.clip.start_ns) in told:
                continue
            # While the main stream stands in, and up to where it hands back, a sub-stream is recorded only.
            handed = Handed(clip, stood_in, away)
            bare_s.append(handed.bare_s)
            if stream != "analyse" or not handed.explained:
                never.append(f"{stream} {clip.path.name}: {handed}")
    yield result("clips", main, "clips", "> 0", "of the main streams")
    yield result("sub_clips", len(sub), "clips", "> 0", "of the sub-streams")
    broken = [f"{clip.path.name}: {why}" for clip in sub if (why := decode_fault(clip.path))]
    yield result("sub_clips_not_decoding", len(broken), "clips", "== 0", "; ".join(broken[:3]) or "of the sub-streams")
    detail = "; ".join(never[:5]) or "of streams that were analysed"
    yield result("clips_never_announced", len(never), "clips", "== 0", detail)
    detail = f"of {len(bare_s)} clips of a sub-stream, analysed neither there nor in the main stream: hand-overs"
    yield result(
        "handed_over_s", round(sum(bare_s), 1), "s", "", f"{detail}; the longest {max(bare_s, default=0):.1f} s"
    )
    yield result("announced_without_clip", alone, "clips", "== 0", "on the bus, but not on disk")
    ids = Counter((task.stream, task.clip_id) for task in node.tasks)
    yield result("announced_twice", sum(n > 1 for n in ids.values()), "clips", "== 0", "readers would drop them")


@dataclass(frozen=True, slots=True)
class Handed:
    """A clip of a sub-stream that was not announced.

    Attributes:
        stood_in: when the main stream was analysed for it.
        away: when the main stream was not recorded.
    """

    clip: StoredClip
    stood_in: Sequence[Span]
    away: Sequence[Span]

    def _outside_s(self, *others: Span) -> float:
        """Seconds of the clip that are in none of these."""
        inside = within(joined(others), self.clip.clip.start_ns, self.clip.end_ns)
        return (self.clip.duration_ns - sum(span.duration_ns for span in inside)) / NS_PER_S

    @property
    def bare_s(self) -> float:
        """Seconds of it that were analysed in neither stream."""
        return self._outside_s(*self.stood_in)

    @property
    def explained(self) -> bool:
        """Whether the main stream stood in during it or right before, and what was analysed nowhere is a hand-over.

        That takes longer when the main stream fails while it stands in: a stall must be noticed first.
        """
        from_ns = self.clip.clip.start_ns - round((HANDOVER_S + STALL_S) * NS_PER_S)
        follows = any(span.from_ns < self.clip.end_ns and span.to_ns > from_ns for span in self.stood_in)
        both_s = self._outside_s(*self.stood_in, *self.away)
        return follows and both_s <= HANDOVER_S and self.bare_s <= HANDOVER_S + STALL_S

    def __str__(self) -> str:
        both_s = self._outside_s(*self.stood_in, *self.away)
        before = [span.to_ns for span in self.stood_in if span.from_ns < self.clip.end_ns]
        since = f"{(self.clip.clip.start_ns - max(before)) / NS_PER_S:.1f} s after" if before else "without"
        return f"{self.bare_s:.1f} s analysed nowhere, {both_s:.1f} s of it with a main stream, {since} a stand-in"


def _samples(node: RecordingNode, street: Street) -> Iterator[Result]:
    rates = {}
    for camera in street.cameras:
        tasks = [task for task in node.tasks if task.camera_id == camera.name]
        seconds = sum(task.duration_ns for task in tasks) / NS_PER_S
        rates[camera.name] = sum(len(task.sample_ns) for task in tasks) / seconds if seconds else 0.0
    worst = min(rates, key=rates.__getitem__)
    detail = f"of {SAMPLE_FPS:g} configured, from {FPS} frames/s, per second of analysed clips"
    yield result("samples_per_s_mean", round(sum(rates.values()) / len(rates), 3), "1/s", ">= 4.9", detail)
    yield result("samples_per_s_least", round(rates[worst], 3), "1/s", ">= 4.75", f"{worst}; {detail}")
    subs = Counter(task.stream for task in node.tasks)
    yield result(
        "fallback_clips",
        _fallback(node, street),
        "clips",
        "",
        f"main clips analysed for a sub-stream; in all {dict(subs)}",
    )


def _fallback(node: RecordingNode, street: Street) -> int:
    with_sub = {camera.name for camera in street.cameras if camera.sub is not None}
    return sum(task.camera_id in with_sub and task.stream == "record" for task in node.tasks)
