"""`nodeagent run` with fifty RTSP cameras: seconds from the start of the command to the last camera's first sample.

Small pictures: on a small machine the decoders' CPU must not hide what starting costs.  Everything is real: the
command, its preload, inference, judge and alarm worker, the broker.  A sample is seen in its ring.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nodeagent.cli.demo_config import MODEL
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.report import Kind
from nodeagent.infra.incarnation import SHM_BASE, SHM_VARIABLE, live_board_path
from nodeagent.infra.storage import init_pool
from nodeagent.ring import RingReader
from nodeagent.ring.folder import rings_folder
from tests.bench.harness import Result, result
from tests.support.agent import Agent
from tests.support.media import make_video
from tests.support.recording import camera_toml
from tests.support.rtsp import RtspServer
from tests.support.services import RedisServer

CAMERAS, QUICK_CAMERAS = 50, 8
#: A camera's pictures: small and slow, with a key frame each second.
FPS, GOP_S = 5, 1.0
#: Give up after so many seconds.
PATIENCE_S = 180.0
LOOK_S = 0.1


@dataclass(slots=True)
class Start:
    """When a camera's steps were seen, seconds from the start of the command; 0 before.

    Attributes:
        forked: its process was asked for.
        at_work: its process gave its first beat.
        opened: it had a ring, so its source had been opened and a key frame had come.
        sampled: the first sample lay in the ring.
    """

    forked: float = 0.0
    at_work: float = 0.0
    opened: float = 0.0
    sampled: float = 0.0


def run(quick: bool) -> Iterator[Result]:
    """Start once and watch the board."""
    names = [f"cam{n:02}" for n in range(QUICK_CAMERAS if quick else CAMERAS)]
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="start-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        shm = SHM_BASE.with_name(f"nodeagent-{folder.name}")
        stack.callback(shutil.rmtree, shm, ignore_errors=True)
        stack.callback(os.environ.pop, SHM_VARIABLE, None)
        os.environ[SHM_VARIABLE] = str(shm)
        redis = RedisServer()
        stack.callback(redis.remove)
        redis.start()
        video = make_video(folder / "camera.mp4", width=160, height=120, fps=FPS, gop=round(FPS * GOP_S), seconds=20)
        rtsp = stack.enter_context(RtspServer(dict.fromkeys(names, video), FPS))
        init_pool(folder / "pool")
        agent = Agent(folder / "agent", _config(folder, redis.url, {name: rtsp.url(name) for name in names}))
        started_ns = time.time_ns()
        stack.enter_context(agent)
        yield from _told(_watch(agent, names, started_ns), agent, started_ns)


def _config(folder: Path, redis_url: str, cameras: Mapping[str, str]) -> str:
    small = {"sample_width": 160}
    return (
        f'[node]\nnode_id = "n1"\nstate_dir = {json.dumps(str(folder / "state"))}\nstop_timeout_s = 20\n'
        f"[redis]\nurl = {json.dumps(redis_url)}\n"
        f"[[pool]]\npath = {json.dumps(str(folder / 'pool'))}\nquota_gb = 20\nreserve_gb = 0.1\n"
        f'[[models]]\nname = "demo"\nfile = {json.dumps(str(MODEL))}\n'
        + "\n".join(camera_toml(name, url, small) for name, url in cameras.items())
    )


def _watch(agent: Agent, names: Sequence[str], started_ns: int) -> dict[str, Start]:
    starts = {name: Start() for name in names}
    rings: dict[str, RingReader] = {}
    end_s = time.monotonic() + PATIENCE_S
    while not all(start.sampled for start in starts.values()):
        if time.monotonic() > end_s:
            late = [name for name, start in starts.items() if not start.sampled]
            raise AssertionError(f"no sample within {PATIENCE_S:.0f} s from {late}")
        now = (time.time_ns() - started_ns) / NS_PER_S
        memory = live_board_path(agent.settings.node.state_dir)
        if memory is not None:
            _look_at_rings(memory.parent, starts, rings, now)
        for row in agent.rows():
            if row.kind is Kind.CAPTURE and row.pid:
                start = starts[row.name.partition(":")[2]]
                start.forked = start.forked or (row.started_ns - started_ns) / NS_PER_S
                start.at_work = start.at_work or (now if row.beat_age_s is not None else 0.0)
        time.sleep(LOOK_S)
    return starts


def _look_at_rings(memory_dir: Path, starts: Mapping[str, Start], rings: dict[str, RingReader], now: float) -> None:
    for name, start in starts.items():
        if name not in rings:
            made = sorted(rings_folder(memory_dir).glob(f"{name}.g*"))
            if not made:
                continue
            rings[name] = RingReader.open(memory_dir, name, int(made[-1].name.rpartition(".g")[2]))
            start.opened = now
        if not start.sampled and rings[name].head:
            start.sampled = now


def _told(starts: Mapping[str, Start], agent: Agent, started_ns: int) -> Iterator[Result]:
    report = agent.report()
    board_s = (report.started_ns - started_ns) / NS_PER_S if report else 0.0
    forked = sorted(start.forked for start in starts.values())
    how = (
        f"{len(starts)} RTSP cameras of 160x120 at {FPS}/s with a key frame each {GOP_S:g} s, seen within {LOOK_S:g} s"
    )
    yield result("last_first_sample_s", max(start.sampled for start in starts.values()), "s", "", how)
    yield result(
        "first_first_sample_s", min(start.sampled for start in starts.values()), "s", "", "the quickest camera"
    )
    yield result("command_s", board_s, "s", "", "until the supervisor had read its configuration and made its board")
    yield result(
        "first_fork_s", forked[0], "s", "", "until the first capture was asked for: the others' starts and the preload"
    )
    each = (forked[-1] - forked[0]) / max(1, len(forked) - 1)
    yield result(
        "fork_each_s", each, "s", "", f"between two captures; the last one was asked for at {forked[-1]:.1f} s"
    )
    rows = starts.values()
    for name, spent, detail in (
        ("process_s", [s.at_work - s.forked for s in rows], "from asking for a process to its first beat"),
        ("open_s", [s.opened - s.at_work for s in rows], "from there to its ring: broker, source, first key frame"),
        ("sample_s", [s.sampled - s.opened for s in rows], "from its ring to the first sample in it"),
    ):
        middle, worst = np.percentile(spent, [50, 100])
        yield result(name, round(float(middle), 2), "s", "", f"median; the slowest camera {worst:.1f} s; {detail}")
