"""kill -9 of all processes of an agent: seconds until the other node records its cameras, with what they are spent on.

Two agents, two registries, RabbitMQ and one Redis at default settings; somebody else watches each camera all the time,
so that a new client gets its stream as it is.  All clocks are one, so every part is a difference of two moments: of
the kill, of log lines, and of the capture time in the name of the first new clip.  Frames that FFmpeg reads while it
opens a source are recorded, too.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nodeagent.capture.opening import open_source
from nodeagent.contract.camera import StreamSpec
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.ownership import LEASE_S, REPORT_S
from nodeagent.infra.settings.sections import CaptureSettings
from tests.bench.harness import Result, result
from tests.support.cluster import Cluster, Viewers
from tests.support.eventually import eventually
from tests.support.log_lines import Line, first

CAMERAS, RUNS = 20, 10
QUICK_CAMERAS, QUICK_RUNS = 4, 1
VICTIM, HEIR = "n1", "n2"
#: Seconds within which every orphan must be recorded again, and all must be calm after a node came back.
BACK_S = 90.0
#: Parts of a failover, in order: what ends each, and what it is.
PARTS = {
    "silence": "from the kill until the registry took the camera from the dead node",
    "decision": "from there until it had granted it to the other one",
    "told": "from there until the other agent had taken it",
    "spawn": "from there until its capture was at work",
    "open": "from there until the source was open: RTSP's handshake, and one packet",
    "key_frame": "from there to the first sample of the new clip; 0 where FFmpeg had read a key frame while it opened",
}


@dataclass(frozen=True, slots=True)
class Failover:
    """One orphan.

    Attributes:
        camera: its id.
        total_s: from the kill until the recorder had the first sample of the first new clip.
        unrecorded_s: from the kill to the capture time of that sample.
        parts: `total_s` in parts, seconds each, by the names of `PARTS`.
    """

    camera: str
    total_s: float
    unrecorded_s: float
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """One kill.

    Attributes:
        failovers: of every orphan.
        misplaced: cameras that were not on exactly one node afterwards.
        restarted: cameras of the other node whose capture is another process now.
    """

    failovers: tuple[Failover, ...]
    misplaced: tuple[str, ...]
    restarted: tuple[str, ...]


def run(quick: bool) -> Iterator[Result]:
    """Kill, wait, start the node again and give it its half back; then the next kill."""
    cameras, runs = (QUICK_CAMERAS, QUICK_RUNS) if quick else (CAMERAS, RUNS)
    chance = random.Random(11)
    with Cluster(cameras=cameras) as cluster, Viewers([cluster.rtsp.url(name) for name in cluster.cameras]):
        cluster.bring_in()
        done = []
        for _ in range(runs):
            _share(cluster)
            # Anywhere between two reports.
            time.sleep(REPORT_S * (1 + chance.random()))
            done.append(_kill(cluster))
            cluster.agents[VICTIM].start()
            cluster.all_live()
        yield from _seconds([one for each in done for one in each.failovers], len(cluster.cameras), runs)
        yield from _order(cluster, done)
        yield from _probing(cluster.rtsp.url(cluster.cameras[0]))


def _share(cluster: Cluster) -> None:
    """Half of the cameras on each node."""
    half = len(cluster.cameras) // 2
    here = cluster.on(VICTIM)
    cluster.move([name for name in cluster.cameras if name not in here][: half - len(here)], VICTIM)

    def is_even() -> bool:
        return cluster.each_once() and len(cluster.on(VICTIM)) == half

    eventually(is_even, within_s=BACK_S, every_s=0.2)


def _kill(cluster: Cluster) -> Run:
    before = cluster.captured()
    orphans = cluster.on(VICTIM)
    at_ns = cluster.kill_tree(VICTIM)

    def recorded() -> bool:
        lines = cluster.registries_logged()
        return all(
            (grant := first(lines, "camera_granted", at_ns, camera=name)) is not None
            and grant.fields["epoch"] in cluster.started(HEIR, name)
            for name in orphans
        )

    # Seldom: on a small machine the look must not slow down what it looks at.
    eventually(recorded, within_s=BACK_S, every_s=0.5)
    eventually(cluster.each_once, within_s=BACK_S, every_s=0.5)
    after = cluster.captured()
    told, logged = cluster.registries_logged(), cluster.logged(HEIR)
    return Run(
        tuple(_failover(cluster, name, at_ns, told, logged) for name in orphans),
        tuple(name for name in cluster.cameras if [node for node, _ in after.get(name, [])] != [HEIR]),
        tuple(name for name in before if name not in orphans and before[name] != after.get(name)),
    )


def _failover(cluster: Cluster, camera: str, at_ns: int, told: Sequence[Line], logged: Sequence[Line]) -> Failover:
    """Read out of the logs when each part ended."""
    granted = _line(told, "camera_granted", at_ns, camera=camera)
    epoch = granted.fields["epoch"]
    opened_ns = _line(logged, "source_opened", at_ns, camera=camera, stream="record").at_ns
    sample_ns = cluster.started(HEIR, camera)[epoch]
    ends_ns = (
        at_ns,
        _line(told, "camera_pooled", at_ns, camera=camera).at_ns,
        granted.at_ns,
        _line(logged, "granted", at_ns, camera=camera, epoch=epoch).at_ns,
        _line(logged, "child_phase", at_ns, child_name=f"capture:{camera}", new="running").at_ns,
        opened_ns,
        max(opened_ns, sample_ns),
    )
    spent = [(end - begin) / NS_PER_S for begin, end in pairwise(ends_ns)]
    return Failover(camera, sum(spent), (sample_ns - at_ns) / NS_PER_S, dict(zip(PARTS, spent, strict=True)))


def _line(lines: Iterable[Line], event: str, from_ns: int, **fields: object) -> Line:
    found = first(lines, event, from_ns, **fields)
    assert found is not None, f"no line {event} with {fields}"
    return found


def _seconds(failovers: Sequence[Failover], cameras: int, runs: int) -> Iterator[Result]:
    total = [one.total_s for one in failovers]
    detail = (
        f"{len(failovers)} orphans of {runs} kills, {cameras} cameras on 2 agents; from the kill until the other node "
        f"had the first sample of a clip; dead after {LEASE_S:g} s of silence, a key frame each second"
    )
    yield result("failover_p50", _percentile(total, 50), "s", "", detail)
    yield result("failover_p99", _percentile(total, 99), "s", "<= 8", detail)
    unrecorded = [one.unrecorded_s for one in failovers]
    detail = "from the kill to the capture time of the first new sample: what is missing, beside an unfinished fragment"
    yield result("unrecorded_p50", _percentile(unrecorded, 50), "s", "", detail)
    yield result("unrecorded_p99", _percentile(unrecorded, 99), "s", "", detail)
    for name, what in PARTS.items():
        spent = [one.parts[name] for one in failovers]
        yield result(f"{name}_p50", _percentile(spent, 50), "s", "", what)
        yield result(f"{name}_p99", _percentile(spent, 99), "s", "", what)


def _percentile(values: Sequence[float], share: float) -> float:
    return round(float(np.percentile(values, share)), 2)


def _order(cluster: Cluster, runs: Sequence[Run]) -> Iterator[Result]:
    misplaced = [name for one in runs for name in one.misplaced]
    how = ", ".join(misplaced[:3]) or "each camera on exactly one node after each kill"
    yield result("misplaced", len(misplaced), "cameras", "== 0", how)
    restarted = [name for one in runs for name in one.restarted]
    how = ", ".join(restarted[:3]) or "cameras that were on the other node all the time"
    yield result("restarted", len(restarted), "cameras", "== 0", how)
    grants = Counter((line.fields["camera"], line.fields["epoch"]) for line in _grants(cluster))
    twice = [f"{camera}/{epoch}" for (camera, epoch), count in grants.items() if count > 1]
    how = ", ".join(twice[:3]) or f"of {len(grants)} grants"
    yield result("epochs_granted_twice", len(twice), "epochs", "== 0", how)
    owners = Counter(
        (camera, epoch)
        for node in cluster.agents
        for camera in cluster.cameras
        for epoch in cluster.started(node, camera)
    )
    shared = [f"{camera}/{epoch}" for (camera, epoch), nodes in owners.items() if nodes > 1]
    how = ", ".join(shared[:3]) or f"of {len(owners)} epochs in the names of clips"
    yield result("epochs_on_two_nodes", len(shared), "epochs", "== 0", how)


def _grants(cluster: Cluster) -> Iterator[Line]:
    return (line for line in cluster.registries_logged() if line.event == "camera_granted")


def _probing(url: str) -> Iterator[Result]:
    """Open a camera as a capture does; packets that are there at once were read to know the stream."""
    began_s = time.monotonic()
    source = open_source(StreamSpec.model_validate({"url": url}), CaptureSettings().stall_timeout_s, brief=True)
    try:
        asked_s = time.monotonic()
        took_s, frames = asked_s - began_s, 0
        for _ in source.container.demux(video=0):
            if time.monotonic() - asked_s >= source.buffered_s:
                break
            asked_s, frames = time.monotonic(), frames + 1
    finally:
        source.container.close()
    detail = f"read by FFmpeg before it called the source open, and recorded all the same; opening took {took_s:.2f} s"
    yield result("frames_probed", frames, "frames", "", detail)
