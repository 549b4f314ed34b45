"""A node that only records: the real supervisor, captures and keeper of the disks; its other workers idle.

`python -m tests.support.recording CONFIG` is its agent.  `RecordingNode` runs it on a Redis of its own and takes the
captures' announcements, as an inference worker would.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from nodeagent.contract.clip import ClipTask
from nodeagent.contract.codec import decode_clip_task
from nodeagent.contract.report import Kind
from nodeagent.contract.states import State
from nodeagent.infra.bus.connect import open_bus
from nodeagent.infra.bus.topology import clips_queue
from nodeagent.infra.gaps import Gap, read_gaps
from nodeagent.infra.incarnation import SHM_BASE, SHM_VARIABLE
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.storage import Storage, StoredClip, init_pool
from nodeagent.supervisor import daemon
from nodeagent.supervisor.kinds import KINDS, KindRow
from tests.support.agent import Agent
from tests.support.eventually import eventually
from tests.support.services import RedisServer

ROOT = Path(__file__).parent.parent.parent
NODE = "n1"
#: End of time for "all clips".
FOREVER_NS = 2**62
#: Kinds that do their real work.
REAL = (Kind.CAPTURE, Kind.STORAGE)
#: Announcements taken at a time.
_PREFETCH = 200


def _kinds() -> dict[Kind, KindRow]:
    """Captures and storage as they are; the others idle in `tests.support.workers`."""
    idle = "tests.support.workers:main"
    return {
        kind: row if kind in REAL else KindRow(idle, row.start_limit_s, row.hang_limit_s, row.drain_share)
        for kind, row in KINDS.items()
    }


def camera_toml(name: str, record: str, more: Mapping[str, object] | None = None, analyse: str = "") -> str:
    """One camera's section; `more` are further fields."""
    lines = [f"[[cameras]]\ncamera_id = {json.dumps(name)}\nrecord = {{ url = {json.dumps(record)} }}"]
    lines += [f"analyse = {{ url = {json.dumps(analyse)} }}"] if analyse else []
    lines += [f"{field} = {json.dumps(value)}" for field, value in (more or {}).items()]
    return "\n".join(lines) + "\n"


class RecordingAgent(Agent):
    """The agent's process."""

    def start(self) -> None:
        """Start it; returns at once."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.recording", str(self.config_path)],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


class RecordingNode:
    """A recording node, from `with` until its end; leaves nothing behind.

    Attributes:
        folder: everything of it but what is in memory.
        agent: its agent; started with the first `configure`.
        tasks: announcements so far, doubles included, in the order of their arrival.
    """

    def __init__(self, capture: str = "") -> None:
        """`capture`: lines of the section `[capture]`."""
        self._capture = capture
        self._stack = ExitStack()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._take, name="announcements", daemon=True)
        self._fault: BaseException | None = None
        self.tasks: list[ClipTask] = []

    def __enter__(self) -> RecordingNode:
        with self._stack as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="recording-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            shm = SHM_BASE.with_name(f"nodeagent-{self.folder.name}")
            stack.callback(shutil.rmtree, shm, ignore_errors=True)
            stack.callback(os.environ.pop, SHM_VARIABLE, None)
            os.environ[SHM_VARIABLE] = str(shm)
            self.redis = RedisServer()
            stack.callback(self.redis.remove)
            self.redis.start()
            init_pool(self.folder / "pool")
            self.agent = RecordingAgent(self.folder / "agent", self._head())
            stack.callback(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self.agent.log_path.exists():
            print(self.agent.log_tail(), file=sys.stderr)
        self._stack.__exit__(kind, error, trace)

    def _head(self) -> str:
        folder = self.folder
        return (
            f'[node]\nnode_id = "{NODE}"\nstate_dir = {json.dumps(str(folder / "state"))}\nstop_timeout_s = 20\n'
            f"[redis]\nurl = {json.dumps(self.redis.url)}\n[capture]\n{self._capture}\n"
            f"[[pool]]\npath = {json.dumps(str(folder / 'pool'))}\nquota_gb = 20\nreserve_gb = 0.1\n"
            '[[models]]\nname = "m"\nfile = "m.toml"\n'
        )

    def configure(self, cameras: Mapping[str, str]) -> None:
        """Serve these cameras, given as sections of TOML; starts the agent, or tells it to read again."""
        beside = self.agent.config_path.with_suffix(".new")
        beside.write_text(self._head() + "\n".join(cameras.values()))
        beside.replace(self.agent.config_path)
        if self.agent.process is None:
            self.agent.start()
            self._thread.start()
        else:
            self.agent.hup()

    def _end(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self.agent.stop()

    def _take(self) -> None:
        try:
            bus = open_bus(load_settings(self.agent.config_path))
            bus.declare()
            bus.consume(clips_queue(NODE), _PREFETCH)
            while not self._ended.is_set():
                delivery = bus.get(0.2)
                if delivery is not None:
                    self.tasks.append(decode_clip_task(delivery.message))
                    bus.ack(delivery)
            bus.close()
        except BaseException as exc:  # told to whoever asks
            self._fault = exc

    def stop(self) -> None:
        """TERM; all that was recorded is closed, told and announced when it returns."""
        code = self.agent.stop()
        assert code == 0, f"the agent did not drain: {code}"
        seen, quiet_s = -1, time.monotonic()
        while time.monotonic() - quiet_s < 1.0:
            if len(self.tasks) != seen:
                seen, quiet_s = len(self.tasks), time.monotonic()
            time.sleep(0.05)
        if self._fault is not None:
            raise AssertionError("announcements were not taken") from self._fault

    def capturing(self, name: str, within_s: float = 60.0) -> int:
        """Wait until the camera records; return its process's pid."""

        def check() -> int:
            row = self.agent.row(f"capture:{name}")
            return row.pid if row and row.pid and row.state is State.CAPTURING else 0

        return eventually(check, within_s=within_s)

    def counters(self, name: str) -> Mapping[str, int]:
        """The camera's counters."""
        row = self.agent.row(f"capture:{name}")
        return row.counters if row else {}

    def clips(self, name: str) -> list[StoredClip]:
        """The camera's finished clips of the main stream."""
        return Storage(self.agent.settings.pools).clips(name, 0, FOREVER_NS)

    def gaps(self, name: str) -> list[Gap]:
        """The camera's whole ledger."""
        return read_gaps(self.agent.settings.node.state_dir, name, 0, FOREVER_NS)

    def announced(self, name: str) -> Counter[tuple[int, int]]:
        """How often each clip (epoch, start) of the camera's main stream was announced."""
        ids = [task.clip_id for task in self.tasks if task.clip_id.camera_id == name]
        return Counter((clip.epoch, clip.start_ns) for clip in ids)


if __name__ == "__main__":
    config = Path(sys.argv[1])
    sys.exit(daemon.supervise(load_settings(config), config, _kinds(), daemon.PRELOAD))
