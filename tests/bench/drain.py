"""A node is drained by `registry drain --wait`: seconds until it returns, and what its cameras lose meanwhile.

Two agents, two registries, RabbitMQ and one Redis at default settings.  The node that is drained has half of the
cameras; the other one takes them while it goes on with its own.  When the command returns nothing may wait on the node:
neither a clip that is not announced, nor one that nobody looked at.  At the end of all runs the cameras are switched
off, and every clip on the disks of both nodes is looked for in the judges' books.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from nodeagent.contract.clip import ClipId
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.report import Kind
from nodeagent.infra.bus.connect import open_bus
from nodeagent.infra.bus.topology import clips_queue, detections_queue
from nodeagent.infra.journals import untold
from nodeagent.infra.storage import Storage, StoredClip
from nodeagent.judge.store import read_account
from tests.bench.harness import Result, result
from tests.support import markers
from tests.support.cluster import FOREVER_NS, Cluster, Viewers
from tests.support.eventually import eventually

CAMERAS, RUNS = 20, 6
QUICK_CAMERAS, QUICK_RUNS = 4, 1
#: Alarms that are done sooner than by default: a node that is drained waits for those of its last clips.
QUICK_ALARMS = "[alarm]\nreplay_after_s = 2\nreplay_patience_s = 4\n"
DRAINED, OTHER = "n1", "n2"
#: Seconds within which cameras must be where they are sent, and all that was recorded be judged.
BACK_S = 90.0
#: What lies between two clips that follow each other, seconds: the spacing of frames, and rounding in their names.
SEAM_S = 1 / markers.FPS + 0.002


@dataclass(frozen=True, slots=True)
class Drained:
    """One run.

    Attributes:
        away_s: from the command's start until it said that no camera is left.
        took_s: from the command's start to its end.
        unrecorded_s: by camera, from the end of the old owner's last clip to the new one's first; below 0: both had it.
        left_behind: what still waited on the node when the command had ended, in words.
        misplaced: cameras that were not on exactly the other node then.
    """

    away_s: float
    took_s: float
    unrecorded_s: Mapping[str, float]
    left_behind: tuple[str, ...]
    misplaced: tuple[str, ...]


def run(quick: bool) -> Iterator[Result]:
    """Drain, look, take the order back and give the node its half again; then the next run."""
    cameras, runs = (QUICK_CAMERAS, QUICK_RUNS) if quick else (CAMERAS, RUNS)
    sections = QUICK_ALARMS if quick else ""
    with (
        Cluster(cameras=cameras, sections=sections) as cluster,
        Viewers([cluster.rtsp.url(name) for name in cluster.cameras]),
    ):
        cluster.bring_in()
        done = []
        for number in range(runs):
            _share(cluster)
            # Anywhere between two reports.
            time.sleep(1.0 + number / runs)
            done.append(_drain(cluster))
            subprocess.run(cluster.command("undrain", DRAINED), stdout=subprocess.DEVNULL, timeout=BACK_S, check=True)
        yield from _figures(done, cameras, runs)
        yield from _clips(cluster)


def _share(cluster: Cluster) -> None:
    """Half of the cameras on each node."""
    half = len(cluster.cameras) // 2

    def is_ready() -> bool:
        node = cluster.ask(f"/nodes/{DRAINED}")["node"]
        return node["phase"] == "live" and node["drain"] is None

    eventually(is_ready, within_s=BACK_S, every_s=0.2)
    here = cluster.on(DRAINED)
    cluster.move([name for name in cluster.cameras if name not in here][: half - len(here)], DRAINED)
    eventually(lambda: cluster.each_once() and len(cluster.on(DRAINED)) == half, within_s=BACK_S, every_s=0.2)


def _drain(cluster: Cluster) -> Drained:
    moving = cluster.on(DRAINED)
    before = {name: max(cluster.started(DRAINED, name)) for name in moving}
    began_s = time.monotonic()
    away_s, said = 0.0, []
    with subprocess.Popen(
        cluster.command("drain", DRAINED, "--wait"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stderr is not None
        for line in waiting.stderr:
            said.append(line)
            if not away_s and "no camera left" in line:
                away_s = time.monotonic() - began_s
    took_s = time.monotonic() - began_s
    assert waiting.returncode == 0, said
    left_behind = tuple(_left_behind(cluster))
    after = cluster.captured()
    return Drained(
        away_s or took_s,
        took_s,
        {name: _unrecorded_s(cluster, name, before[name]) for name in moving},
        left_behind,
        tuple(name for name in cluster.cameras if [node for node, _ in after.get(name, [])] != [OTHER]),
    )


def _left_behind(cluster: Cluster) -> Iterator[str]:
    """Looked at past the agent: its folders and the broker."""
    settings = cluster.agents[DRAINED].settings
    yield from (f"journal of {name}" for name in sorted(untold(settings.node.state_dir)))
    storage = Storage(settings.pools)
    yield from (f"open clip of {name}" for name in cluster.cameras if storage.parts(name))
    bus = open_bus(settings)
    try:
        queues = [clips_queue(DRAINED), *(detections_queue(DRAINED, n) for n in range(settings.judge.shards))]
        eventually(lambda: bus.connected)
        yield from (f"{count} in {queue}" for queue in queues if (count := bus.depth(queue)))
    finally:
        bus.close()


def _unrecorded_s(cluster: Cluster, camera: str, epoch: int) -> float:
    """Between the last clip of the epoch that the node had, and the first of the next owner."""
    old = [clip for clip in _clips_on(cluster, DRAINED, camera) if clip.clip.epoch == epoch]
    later = cluster.started(OTHER, camera)
    first_ns = later[min(number for number in later if number > epoch)]
    return (first_ns - max(clip.end_ns for clip in old)) / NS_PER_S - SEAM_S


def _clips_on(cluster: Cluster, node: str, camera: str) -> Sequence[StoredClip]:
    return list(Storage(cluster.agents[node].settings.pools).clips(camera, 0, FOREVER_NS))


def _figures(runs: Sequence[Drained], cameras: int, count: int) -> Iterator[Result]:
    took = [one.took_s for one in runs]
    detail = (
        f"{count} runs, {cameras} cameras on 2 agents, half of them on the node that is drained; the command's own "
        "start is in it; a key frame each second"
    )
    away = [one.away_s for one in runs]
    yield result("cameras_away_p50", _percentile(away, 50), "s", "", detail)
    yield result("cameras_away_max", round(max(away), 2), "s", "", detail)
    detail = (
        "until it returns: what waits then is the end of an alarm, whose replay is waited for 15 s and then 30 s more, "
        "for its camera's clips are elsewhere by now"
    )
    yield result("wait_p50", _percentile(took, 50), "s", "", detail)
    yield result("wait_max", round(max(took), 2), "s", "", detail)
    lost = [seconds for one in runs for seconds in one.unrecorded_s.values()]
    detail = (
        f"{len(lost)} cameras that moved; between the old owner's last clip and the new one's first; below 0: both did"
    )
    yield result("unrecorded_p50", _percentile(lost, 50), "s", "", detail)
    yield result("unrecorded_p99", _percentile(lost, 99), "s", "", detail)
    yield result("unrecorded_max", round(max(lost), 2), "s", "<= 0", detail)
    misplaced = [name for one in runs for name in one.misplaced]
    how = ", ".join(misplaced[:3]) or "each camera on the other node alone when the command ended"
    yield result("misplaced", len(misplaced), "cameras", "== 0", how)
    left_behind = [what for one in runs for what in one.left_behind]
    how = ", ".join(left_behind[:3]) or "journals, open clips and messages in the node's queues when the command ended"
    yield result("left_behind", len(left_behind), "things", "== 0", how)


def _percentile(values: Sequence[float], share: float) -> float:
    return round(float(np.percentile(values, share)), 2)


def _clips(cluster: Cluster) -> Iterator[Result]:
    """Switch the cameras off, wait until all is judged, and add up."""
    # They would move cameras whose source is away.
    for registry in cluster.registries:
        registry.kill9()
    cluster.rtsp.kill9()
    eventually(lambda: not any(_open_clips(cluster)), within_s=BACK_S, every_s=0.5)
    due, fenced = 0, 0
    for name in cluster.cameras:
        clips = {one.clip for node in cluster.agents for one in _clips_on(cluster, node, name)}
        refused = _of_stale_owners(clips)
        due, fenced = due + len(clips) - len(refused), fenced + len(refused)
    # When they are not judged in time, the figure says it.
    with suppress(AssertionError):
        eventually(lambda: _judged(cluster) >= due, within_s=BACK_S, every_s=0.5)
    judged = _judged(cluster)
    detail = (
        f"of {due} on the disks of both nodes, {judged} judged; {fenced} more begin in a later owner's time, and are "
        "judged only where nothing was known of that owner yet"
    )
    yield result("clips_lost", max(0, due - judged), "clips", "== 0", detail)
    rows = [row for agent in cluster.agents.values() for row in agent.rows() if row.kind is Kind.JUDGE]
    twice = sum(row.counters["clips"] for row in rows) - judged
    yield result(
        "clips_judged_twice", twice, "clips", "== 0", "judged by all judges, beyond those in the cameras' books"
    )


def _open_clips(cluster: Cluster) -> Iterator[bool]:
    for agent in cluster.agents.values():
        storage = Storage(agent.settings.pools)
        yield from (bool(storage.parts(name)) for name in cluster.cameras)


def _of_stale_owners(clips: set[ClipId]) -> set[ClipId]:
    """Clips that begin when a later owner had the camera already: the fence refuses them whole."""
    started: dict[int, int] = {}
    for clip in clips:
        started[clip.epoch] = min(started.get(clip.epoch, clip.start_ns), clip.start_ns)
    return {
        clip
        for clip in clips
        if any(epoch > clip.epoch and clip.start_ns >= start_ns for epoch, start_ns in started.items())
    }


def _judged(cluster: Cluster) -> int:
    """Clips in the cameras' books, which go with a camera from judge to judge: the fuller copy is the newer."""
    folders = [agent.settings.node.state_dir for agent in cluster.agents.values()]
    return sum(max(read_account(folder, name).clips for folder in folders) for name in cluster.cameras)
