"""kill -9 of captures at random moments, a hundred times: seconds lost each time, and what becomes of the clips.

Ten RTSP cameras under the real supervisor.  Each is left alone for half a minute between two kills, so that its restart
has no back-off but the first.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.states import State
from nodeagent.supervisor.backoff import HEALTHY_S
from tests.bench.harness import Result, result
from tests.support.accounting import account, not_decoding, not_recorded
from tests.support.eventually import eventually
from tests.support.media import make_video
from tests.support.recording import RecordingNode, camera_toml
from tests.support.rtsp import RtspServer

CAMERAS, KILLS = 10, 100
QUICK_CAMERAS, QUICK_KILLS = 3, 3
FPS, GOP_S = 10, 1.0
#: What a kill may cost beyond the restart and a group of pictures, seconds: a fragment that was not yet on disk.
FRAGMENT_S = 0.5
#: A clip's length: what is missing after a kill lies less than this before it, seconds.
CLIP_S = 5.0
#: Seconds within which a killed capture must record again.
BACK_S = 60.0
#: Spacing of frames, and what a session's first time stamp may be off, seconds.
SEAM_S = 2.0 / FPS


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill.

    Attributes:
        camera: whose capture.
        at_ns: when, UTC.
        back_s: until a new process of it was able to work.
        capturing_s: until it recorded again.
    """

    camera: str
    at_ns: int
    back_s: float
    capturing_s: float


def run(quick: bool) -> Iterator[Result]:
    """Kill, wait, kill; then look at every clip and every second."""
    cameras, kills = (QUICK_CAMERAS, QUICK_KILLS) if quick else (CAMERAS, KILLS)
    names = [f"cam{n:02}" for n in range(cameras)]
    with tempfile.TemporaryDirectory() as folder:
        video = make_video(
            Path(folder) / "camera.mp4", width=320, height=240, fps=FPS, gop=round(FPS * GOP_S), seconds=20
        )
        with RtspServer(dict.fromkeys(names, video), FPS) as rtsp, RecordingNode() as node:
            node.configure({name: camera_toml(name, rtsp.url(name)) for name in names})
            for name in names:
                node.capturing(name)
            done = _kill_all(node, names, kills, 3.0 if quick else HEALTHY_S + 4.0)
            time.sleep(2 * CLIP_S)
            node.stop()
            yield from _lost(node, done)
            yield from _clips(node, names)
            yield from _accounts(node, names)


def _kill_all(node: RecordingNode, names: Sequence[str], kills: int, calm_s: float) -> list[Kill]:
    """Kill the cameras in turn, each `calm_s` or more after it came back."""
    chance, done = random.Random(5), []
    ready_s = dict.fromkeys(names, time.monotonic() + calm_s)
    for number in range(kills):
        name = names[number % len(names)]
        # Anywhere within a clip.
        time.sleep(max(0.0, ready_s[name] - time.monotonic()) + CLIP_S / len(names) * chance.random())
        done.append(_kill(node, name))
        ready_s[name] = time.monotonic() + calm_s
    return done


def _kill(node: RecordingNode, name: str) -> Kill:
    child = f"capture:{name}"
    pid = node.capturing(name)
    os.kill(pid, signal.SIGKILL)
    at_ns, at_s = time.time_ns(), time.monotonic()
    node.agent.running(child, not_pid=pid, within_s=BACK_S)
    back_s = time.monotonic() - at_s

    def again() -> bool:
        row = node.agent.row(child)
        return row is not None and row.pid != pid and row.state is State.CAPTURING

    eventually(again, within_s=BACK_S, every_s=0.02)
    return Kill(name, at_ns, back_s, time.monotonic() - at_s)


def _lost(node: RecordingNode, kills: Sequence[Kill]) -> Iterator[Result]:
    clips = {name: node.clips(name) for name in {kill.camera for kill in kills}}
    lost = []
    for kill in kills:
        # All of the clip before it, and the whole way back.
        begun_ns = clips[kill.camera][0].clip.start_ns
        from_ns = max(begun_ns, kill.at_ns - round(2 * CLIP_S * NS_PER_S))
        lost.append(
            not_recorded(clips[kill.camera], from_ns, kill.at_ns + round((kill.capturing_s + CLIP_S) * NS_PER_S))
        )
    beyond = [seconds - kill.back_s for seconds, kill in zip(lost, kills, strict=True)]
    detail = f"of {len(kills)} kills; from the last frame on disk before to the first one after, by the clips"
    yield result("lost_p50", _percentile(lost, 50), "s", "", detail)
    yield result("lost_p99", _percentile(lost, 99), "s", "", detail)
    back = [kill.back_s for kill in kills]
    yield result("restart_p50", _percentile(back, 50), "s", "", "from the kill until a new process was able to work")
    yield result("restart_p99", _percentile(back, 99), "s", "", "the same; the supervisor's first back-off is in it")
    aim = f"<= {FRAGMENT_S + GOP_S:g}"
    yield result(
        "lost_beyond_restart_p50",
        _percentile(beyond, 50),
        "s",
        "",
        "a fragment, connecting, and the wait for a key frame",
    )
    yield result(
        "lost_beyond_restart_p99",
        _percentile(beyond, 99),
        "s",
        aim,
        f"aim: {FRAGMENT_S:g} s and one group of pictures, {GOP_S:g} s",
    )


def _percentile(values: Sequence[float], share: float) -> float:
    return round(float(np.percentile(values, share)), 2)


def _clips(node: RecordingNode, names: Sequence[str]) -> Iterator[Result]:
    clips = [clip for name in names for clip in node.clips(name)]
    bad = not_decoding(clips)
    yield result("clips", len(clips), "clips", "> 0", f"{len(names)} cameras over RTSP, {FPS} frames/s")
    yield result(
        "clips_not_decoding", len(bad), "clips", "== 0", "; ".join(bad[:3]) or "every frame of each was decoded"
    )
    made = {(clip.clip.camera_id, clip.clip.epoch, clip.clip.start_ns) for clip in clips}
    told = {(name, *key): count for name in names for key, count in node.announced(name).items()}
    yield result("clips_never_announced", len(made - told.keys()), "clips", "== 0", "on disk, but not on the bus")
    yield result("announced_without_clip", len(told.keys() - made), "clips", "== 0", "on the bus, but not on disk")
    twice = sum(count > 1 for count in told.values())
    yield result(
        "clips_announced_twice",
        twice,
        "clips",
        "== 0",
        "sent, but killed before that was written down; readers drop them",
    )


def _accounts(node: RecordingNode, names: Sequence[str]) -> Iterator[Result]:
    rows = [account(node.clips(name), node.gaps(name), SEAM_S) for name in names]
    wall_s = sum(row.wall_s for row in rows)
    detail = (
        f"of {wall_s:.0f} s in all: {sum(row.recorded_s for row in rows):.1f} s recorded, "
        f"{sum(row.told_s for row in rows):.1f} s in the ledger; seams of up to {SEAM_S:g} s are the spacing of frames"
    )
    yield result("untold_s", round(sum(row.untold_s for row in rows), 2), "s", "== 0", detail)
    yield result(
        "told_and_recorded_s",
        round(sum(row.twice_s for row in rows), 2),
        "s",
        f"<= {0.05 * len(names):g}",
        "in two places at once",
    )
