"""A small site as in production: RTSP cameras, RabbitMQ, MariaDB, Redis, an agent, and a receiver of pushes.

The cameras play the shipped crossing clip in a loop, so what happens in front of them is known: `TRUTH`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import av

from nodeagent.alarm.receiver import PushReceiver
from nodeagent.cli.demo_config import CLIP, CLOSED_PATH, LAWN, MODEL
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.incarnation import SHM_BASE, SHM_VARIABLE
from nodeagent.infra.storage import Storage, StoredClip, init_pool
from nodeagent.judge.store import read_account
from tests.support.agent import Agent
from tests.support.eventually import eventually
from tests.support.rtsp import RtspServer
from tests.support.services import MariaDb, RabbitMq, RedisServer

#: Frames per second of the clip, and its length, seconds.
CLIP_FPS = 10
CLIP_S = 79.5
#: End of time for "all clips".
FOREVER_NS = 2**62
#: Key of the pushes' signature.
SECRET = "site-test"
#: Seconds from the clip's start at which somebody enters a zone against its rule, looked up in the pictures.  A second
#: person within the cooldown belongs to the same alarm.
TRUTH: dict[str, tuple[float, ...]] = {"closed-path": (17.6, 51.6), "keep-off-the-lawn": (52.8,)}
#: How far the confirming sample may lie from the moment of entering: hysteresis in (0.6 s), samples 0.2 s apart, and a
#: person whose feet the model sees a little early or late, seconds.
TRUTH_BEFORE_S, TRUTH_AFTER_S = 0.6, 2.5


def site_toml(folder: Path, cameras: dict[str, str], push_url: str, bus: str, database: str, redis: str) -> str:
    """Configuration of a site's only node; empty addresses leave the embedded default."""
    given = {"bus": bus, "database": database, "redis": redis}
    sections = "".join(f"[{name}]\nurl = {json.dumps(url)}\n\n" for name, url in given.items() if url)
    rules = "".join(
        f"""
  [[cameras.rules]]
  rule_id = "{rule_id}"
  kind = "intrusion"
  cooldown_s = 10.0
  storm_per_hour = 0
  zones = [{{ name = "zone", polygon = {json.dumps(zone)} }}]
"""
        for rule_id, zone in (("closed-path", CLOSED_PATH), ("keep-off-the-lawn", LAWN))
    )
    head = f"""[site]
name = "test-site"
time_zone = "Asia/Shanghai"

[node]
node_id = "node1"
state_dir = {json.dumps(str(folder / "state"))}

{sections}
[[pool]]
path = {json.dumps(str(folder / "pool"))}
quota_gb = 5
reserve_gb = 0.2

[[models]]
name = "demo"
file = {json.dumps(str(MODEL))}

[[push]]
name = "receiver"
url = {json.dumps(push_url)}
secret = "{SECRET}"
"""
    parts = [
        f'\n[[cameras]]\ncamera_id = "{name}"\nrecord = {{ url = {json.dumps(url)} }}\n{rules}'
        for name, url in cameras.items()
    ]
    return head + "".join(parts)


class Site:
    """Everything of a small site, from `with` until its end; leaves nothing behind.

    Attributes:
        agent: the node's agent, running.
        rabbit: its broker.
        rtsp: the cameras.
        receiver: what the pushes go to.
        cameras: names of the cameras.
        shm_dir: folder of its rings and board.
    """

    def __init__(self, cameras: int, others: Mapping[str, str] | None = None) -> None:
        """`cameras`: how many play the clip; `others`: cameras at addresses of the test's own, by name."""
        self._others = dict(others or {})
        self.cameras = [f"cam{n}" for n in range(1, cameras + 1)]
        self._stack = ExitStack()

    def __enter__(self) -> Site:
        with self._stack as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="site-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.shm_dir = SHM_BASE.with_name(f"nodeagent-{self.folder.name}")
            stack.callback(shutil.rmtree, self.shm_dir, ignore_errors=True)
            stack.callback(os.environ.pop, SHM_VARIABLE, None)
            os.environ[SHM_VARIABLE] = str(self.shm_dir)
            self.rabbit, self.maria, self.redis = RabbitMq(), MariaDb(), RedisServer()
            for server in (self.rabbit, self.maria, self.redis):
                stack.callback(server.remove)
                server.start()
            self.receiver = stack.enter_context(PushReceiver(SECRET))
            self.rtsp = stack.enter_context(RtspServer(dict.fromkeys(self.cameras, CLIP), CLIP_FPS))
            init_pool(self.folder / "pool")
            config = site_toml(
                self.folder,
                {name: self.rtsp.url(name) for name in self.cameras} | self._others,
                self.receiver.url,
                self.rabbit.url,
                self.maria.new_database(),
                self.redis.url,
            )
            self.agent = stack.enter_context(Agent(self.folder / "agent", config))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def settle(self, within_s: float = 120.0) -> int:
        """Switch the cameras off and wait until everything on its way has arrived: clips judged, alarms pushed.

        Returns when they were switched off, UTC ns.
        """
        off_ns = time.time_ns()
        self.rtsp.kill9()
        storage, state_dir = Storage(self.agent.settings.pools), self.agent.settings.node.state_dir

        def all_judged() -> bool:
            for name in self.cameras:
                made = len(storage.clips(name, 0, FOREVER_NS))
                if storage.parts(name) or not made or read_account(state_dir, name).clips != made:
                    return False
            return True

        eventually(all_judged, within_s=within_s, every_s=0.5)
        # The judge has had its alarms confirmed before it counted the clips; now their queues have to run empty.
        eventually(lambda: not self.waiting_alarms(), within_s=within_s, every_s=1.0)
        return off_ns

    def waiting_alarms(self) -> int:
        """Messages in the queues of alarms, unacknowledged ones included."""
        lines = [line.split() for line in self.rabbit.ctl("-q", "list_queues", "name", "messages").splitlines()]
        return sum(int(line[1]) for line in lines if line[0].startswith("alarms") and line[1].isdigit())


@dataclass(frozen=True, slots=True)
class Placed:
    """A clip and where it lies in the looped video: `at_s` seconds from the loop's start at its first frame."""

    stored: StoredClip
    at_s: float


def place(clips: Sequence[StoredClip]) -> list[Placed]:
    """Where in the looped video each clip begins: its first frame is a key frame of the video, pixel for pixel."""
    known = {}
    with av.open(str(CLIP)) as video:
        video.streams.video[0].codec_context.skip_frame = "NONKEY"
        for frame in video.decode(video=0):
            known[frame.to_ndarray().tobytes()] = float(frame.time or 0.0)
    return [Placed(stored, known[_first_picture(stored.path)]) for stored in clips]


def _first_picture(path: Path) -> bytes:
    with av.open(str(path)) as clip:
        return next(clip.decode(video=0)).to_ndarray().tobytes()


def entries(placed: Sequence[Placed], rule_id: str, after_s: float) -> list[int]:
    """Capture times (UTC ns) at which somebody enters the rule's zone and `after_s` seconds of it are recorded."""
    found = []
    spans = [(p.stored.clip.start_ns, p.stored.end_ns, p.at_s) for p in placed]
    for start_ns, end_ns, at_s in spans:
        length_s = (end_ns - start_ns) / NS_PER_S
        for truth_s in TRUTH[rule_id]:
            into_s = (truth_s - at_s) % CLIP_S
            moment_ns = start_ns + round(into_s * NS_PER_S)
            if into_s < length_s and _recorded(spans, moment_ns, moment_ns + round(after_s * NS_PER_S)):
                found.append(moment_ns)
    return sorted(found)


def _recorded(spans: Sequence[tuple[int, int, float]], from_ns: int, to_ns: int) -> bool:
    """Whether the clips cover `[from_ns, to_ns)` but for the spacing of frames."""
    reach_ns = from_ns
    for start_ns, end_ns, _ in sorted(spans):
        if start_ns <= reach_ns + NS_PER_S // CLIP_FPS:
            reach_ns = max(reach_ns, end_ns)
    return reach_ns >= to_ns
