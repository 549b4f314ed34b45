"""A small cluster on one machine: whole agents and registries as processes, their Redis, their broker, RTSP cameras.

Nothing of a stage is faked.  All logs are JSON lines, so that a test can read who did what when (`log_lines`).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import av
import httpx

from nodeagent.contract.states import State
from nodeagent.infra.incarnation import SHM_BASE, SHM_VARIABLE
from nodeagent.infra.storage import Storage, init_pool
from tests.support import markers
from tests.support.agent import Agent
from tests.support.eventually import eventually
from tests.support.log_lines import Line, read_lines
from tests.support.models import marker_model
from tests.support.namespaces import Hosts
from tests.support.process_tree import is_alive, tree_of
from tests.support.proxy import Proxy
from tests.support.rtsp import RtspServer
from tests.support.server import LOOPBACK
from tests.support.services import RabbitMq, RedisServer, free_port

#: Seconds within which nodes and registries must be up, and cameras be where they belong, on a busy machine.
UP_S = 90.0
#: Seconds within which killed processes are gone.
GONE_S = 10.0
#: End of time for "all clips".
FOREVER_NS = 2**62
#: How agents call themselves in Redis, so that a test may take rights from them alone.
AGENTS = "agents"
#: What agents and registries use beside each other, where these run on hosts of their own.
SERVICES = ("redis", "rabbit", "cameras")
#: Opens the clips of every node to the others.
_CLIP_TOKEN = "cluster-" + "0" * 32
_REGISTRY = (sys.executable, "-c", "from registry.cli import main; main()")


def _clip_sections(node: str, places: Mapping[str, str]) -> str:
    """How a node serves its clips, and where the others serve theirs; `places`: address and port of each."""
    served = f'[endpoint]\nlisten = "{places[node]}"\n'
    served += f'[[endpoint.tokens]]\nname = "peers"\ntoken = "{_CLIP_TOKEN}"\n'
    peers = [
        f'[[peers]]\nnode_id = "{name}"\nurl = "http://{place}"\ntoken = "{_CLIP_TOKEN}"\n'
        for name, place in places.items()
        if name != node
    ]
    return served + "".join(peers)


class RegistryServer:
    """`registry serve`, from `start` until its end.

    Attributes:
        name: its id.
        url: its address.
        log_path: its log.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        redis_url: str,
        database_url: str = "",
        hosts: Hosts | None = None,
        strategy: str = "broadcast",
    ) -> None:
        """Registries of one cluster share `folder` for their keys, and for a database where no other is named."""
        port, address = free_port(), hosts.address(name) if hosts else LOOPBACK
        self._within = hosts.within(name) if hosts else []
        self.name, self.url = name, f"http://{address}:{port}"
        self.log_path, self._config = folder / f"{name}.log", folder / f"{name}.toml"
        database = database_url or f"sqlite:///{folder}/site.db"
        self._config.write_text(
            f'[registry]\nregistry_id = "{name}"\nhost = "{address}"\nport = {port}\n'
            f"state_dir = {json.dumps(str(folder / name))}\n"
            f'[database]\nurl = "{database}"\n[redis]\nurl = {json.dumps(redis_url)}\n'
            f'[secrets]\nkey_file = {json.dumps(str(folder / "keys"))}\n[log]\nformat = "json"\n'
            f'[placement]\nstrategy = "{strategy}"\n'
        )
        self.process: subprocess.Popen[bytes] | None = None

    def token(self, *arguments: str) -> str:
        """A new token, by the command; `arguments` say whose."""
        line = [*_REGISTRY, "token", "create", *arguments, "-c", str(self._config)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start(self) -> None:
        """Start it; returns when it serves."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._within, *_REGISTRY, "serve", "-c", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(self._is_ready, within_s=UP_S)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def kill9(self) -> None:
        """Kill it; harmless when it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Cluster:
    """Everything of it, from `with` until its end; leaves nothing behind.

    Attributes:
        folder: everything but what is in memory.
        redis: the one that all share.
        agents: by node id.
        registries: in the order in which agents try them.
        rtsp: the cameras.
        cameras: their names.
        bus_url: their broker's address, past all proxies; empty without one.
        proxies: by node, what lies between it and the broker, where that was asked for.
    """

    def __init__(
        self,
        nodes: int = 2,
        registries: int = 2,
        cameras: int = 4,
        *,
        rabbit: bool = True,
        proxied: bool = False,
        hosts: Hosts | None = None,
        database_url: str = "",
        sections: str = "",
        loop_s: float = markers.LOOP_S,
        strategy: str = "broadcast",
    ) -> None:
        """See the module.

        Args:
            nodes: agents, `n1` and on.
            registries: `reg1` and on.
            cameras: of one video each, `loop_s` long.
            rabbit: the agents' broker; without it they use streams of the Redis that all share.
            proxied: whether a proxy lies between each agent and the broker.
            hosts: where agents and registries run, by these names; they need services of the names in `SERVICES`.
            database_url: of the database of all; without it registries share a file, and agents have one each.
            sections: more of every agent's TOML.
            loop_s: seconds from one red square to the next.
            strategy: how nodes get cameras.
        """
        self._counts, self._rabbit, self._hosts = (nodes, registries), rabbit, hosts
        self._database_url, self._sections, self._loop_s = database_url, sections, loop_s
        self._proxied, self.bus_url = proxied, ""
        self.proxies: dict[str, Proxy] = {}
        self._strategy = strategy
        self.cameras = [f"cam{n:02}" for n in range(cameras)]
        self.agents: dict[str, Agent] = {}
        self.registries: list[RegistryServer] = []
        self._stack = ExitStack()
        self._admin = ""

    def __enter__(self) -> Cluster:
        with self._stack as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="cluster-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            shm = SHM_BASE.with_name(f"nodeagent-{self.folder.name}")
            stack.callback(shutil.rmtree, shm, ignore_errors=True)
            stack.callback(os.environ.pop, SHM_VARIABLE, None)
            os.environ[SHM_VARIABLE] = str(shm)
            options = ["--user", AGENTS, "on", "nopass", "~*", "&*", "+@all"]
            self.redis = RedisServer(options=options, address=self._at("redis"))
            stack.callback(self.redis.remove)
            self.redis.start()
            if self._rabbit:
                broker = RabbitMq(address=self._at("rabbit"))
                stack.callback(broker.remove)
                broker.start()
                self.bus_url = broker.url
            video = markers.marker_video(self.folder / "markers.mp4", self._loop_s)
            streams = dict.fromkeys(self.cameras, video)
            server = RtspServer(streams, markers.FPS, shared=True, address=self._at("cameras"))
            self.rtsp = stack.enter_context(server)
            self._start_registries(stack)
            self._start_agents(stack)
            # An agent that is told to stop would hand its cameras over to one that stops next.
            stack.callback(self._kill_agents)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _at(self, name: str) -> str:
        return self._hosts.address(name) if self._hosts else LOOPBACK

    def _start_registries(self, stack: ExitStack) -> None:
        for number in range(1, self._counts[1] + 1):
            self.registries.append(self._registry(f"reg{number}"))
        self._admin = self.registries[0].token("anna", "--role", "admin")
        for registry in self.registries:
            stack.callback(registry.kill9)
            registry.start()

    def _registry(self, name: str) -> RegistryServer:
        return RegistryServer(self.folder, name, self.redis.url, self._database_url, self._hosts, self._strategy)

    def _bus_section(self, stack: ExitStack, node: str) -> str:
        """How a node reaches the broker."""
        url = self.bus_url
        if self._proxied:
            port = urlsplit(url).port
            assert port is not None
            proxy = self.proxies[node] = stack.enter_context(Proxy(port))
            url = url.replace(f":{port}", f":{proxy.port}")
        return f"[bus]\nurl = {json.dumps(url)}\n" if url else ""

    def _start_agents(self, stack: ExitStack) -> None:
        model = marker_model(self.folder, width=markers.MODEL_WIDTH, height=markers.MODEL_HEIGHT)
        names = [f"n{n}" for n in range(1, self._counts[0] + 1)]
        places = {name: f"{self._at(name)}:{free_port()}" for name in names}
        database = f'[database]\nurl = "{self._database_url}"\n' if self._database_url else ""
        shared = (
            f"[redis]\nurl = {json.dumps(self.redis.url.replace('//', f'//{AGENTS}:any@'))}\n"
            f'[[models]]\nname = "markers"\nfile = {json.dumps(str(model))}\n[log]\nformat = "json"\n'
            f"{database}{self._sections}"
        )
        for name in names:
            init_pool(self.folder / name / "pool")
            text = shared + self._bus_section(stack, name) + self._own_sections(name) + _clip_sections(name, places)
            within = self._hosts.within(name) if self._hosts else []
            self.agents[name] = stack.enter_context(Agent(self.folder / name, text, within))
        self.all_live()

    def _own_sections(self, node: str) -> str:
        folder, urls = self.folder / node, json.dumps([registry.url for registry in self.registries])
        return (
            f'[node]\nnode_id = "{node}"\nstate_dir = {json.dumps(str(folder / "state"))}\n'
            f"[[pool]]\npath = {json.dumps(str(folder / 'pool'))}\nquota_gb = 20\nreserve_gb = 0.1\n"
            f'[registry]\nurls = {urls}\ntoken = "{self.registries[0].token(node, "--node", node)}"\n'
            f'strategy = "{self._strategy}"\n'
        )

    def people(self, registry: RegistryServer | None = None) -> httpx.Client:
        """An administrator's connection to a registry, else to the first one that runs."""
        asked = registry or next(one for one in self.registries if one.process is not None)
        headers = {"Authorization": f"Bearer {self._admin}"}
        return httpx.Client(base_url=f"{asked.url}/api/v1", headers=headers, trust_env=False, timeout=20)

    def ask(self, path: str) -> Any:
        """A document of the first registry that runs."""
        with self.people() as people:
            answer = people.get(path)
            assert answer.is_success, answer.text
            return answer.json()

    def command(self, *arguments: str) -> list[str]:
        """The command line of an administrator's `registry ARGUMENTS`."""
        (token := self.folder / "admin.token").write_text(self._admin)
        return [*_REGISTRY, *arguments, "--url", self.registries[0].url, "--token-file", str(token)]

    def all_live(self) -> None:
        """Wait until the registry takes every node for live."""
        eventually(lambda: self.ask("/cluster")["nodes"]["live"] == len(self.agents), within_s=UP_S, every_s=0.2)

    def bring_in(self) -> None:
        """Tell the registry of all cameras, and wait until each is captured on one node."""
        rule = {
            "rule_id": "red",
            "kind": "intrusion",
            "labels": ["red"],
            "zones": [{"name": "left", "polygon": markers.RED_ZONE}],
            "cooldown_s": 0.0,
            "storm_per_hour": 0,
        }
        specs = [
            {"camera_id": name, "record": {"url": self.rtsp.url(name)}, "sample_width": 320, "rules": [rule]}
            for name in self.cameras
        ]
        with self.people() as people:
            answer = people.post("/import", json={"cameras": [{"spec": spec} for spec in specs]})
            assert answer.is_success, answer.text
        eventually(self.each_once, within_s=UP_S, every_s=0.2)

    def move(self, cameras: Iterable[str], node: str) -> None:
        """Give cameras to a node by hand."""
        with self.people() as people:
            for camera in cameras:
                answer = people.post(f"/cameras/{camera}/move", json={"node_id": node})
                assert answer.is_success, answer.text

    def captured(self) -> dict[str, list[tuple[str, int]]]:
        """By camera, the nodes that get its pictures, with the pid of its capture."""
        found: dict[str, list[tuple[str, int]]] = {}
        for name, agent in self.agents.items():
            if agent.process is None or agent.process.poll() is not None:
                continue
            for row in agent.rows():
                if row.name.startswith("capture:") and row.state is State.CAPTURING and row.counters["samples"]:
                    found.setdefault(row.name.removeprefix("capture:"), []).append((name, row.pid))
        return found

    def on(self, node: str) -> list[str]:
        """Cameras that a node gets pictures of."""
        return sorted(camera for camera, where in self.captured().items() if node in {one for one, _ in where})

    def each_once(self) -> bool:
        """Whether every camera is captured, on one node."""
        captured = self.captured()
        return sorted(captured) == self.cameras and all(len(where) == 1 for where in captured.values())

    def kill_tree(self, node: str) -> int:
        """kill -9 of all processes of a node's agent; returns when, UTC ns."""
        agent = self.agents[node]
        pids = tree_of(agent.pid)
        at_ns = time.time_ns()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert agent.process is not None
        agent.process.wait()
        eventually(lambda: not [pid for pid in pids if is_alive(pid)], within_s=GONE_S)
        return at_ns

    def _kill_agents(self) -> None:
        for node, agent in self.agents.items():
            if agent.process is not None and agent.process.poll() is None:
                self.kill_tree(node)

    def logged(self, node: str) -> list[Line]:
        """What a node's agent told so far."""
        return read_lines(self.agents[node].log_path)

    def registries_logged(self) -> list[Line]:
        """What the registries told so far, in order of time."""
        lines = [line for registry in self.registries for line in read_lines(registry.log_path)]
        return sorted(lines, key=lambda line: line.at_ns)

    def storage(self, node: str) -> Storage:
        """What a node records to."""
        return Storage(self.agents[node].settings.pools)

    def started(self, node: str, camera: str) -> Mapping[int, int]:
        """By epoch, the capture time of the first sample that a node has in a clip, finished or not, UTC ns."""
        storage = self.storage(node)
        clips = [stored.clip for stored in storage.clips(camera, 0, FOREVER_NS)]
        clips += [clip for clip, _ in storage.parts(camera)]
        found: dict[int, int] = {}
        for clip in clips:
            found[clip.epoch] = min(found.get(clip.epoch, clip.start_ns), clip.start_ns)
        return found


class Viewers:
    """Somebody else who watches the cameras all the time, so that whoever comes gets the stream as it is, not anew."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=(url,), daemon=True) for url in urls]

    def _watch(self, url: str) -> None:
        with av.open(url, options={"rtsp_transport": "tcp"}, timeout=20.0) as source:
            for _ in source.demux(video=0):
                if self._ended.is_set():
                    return

    def __enter__(self) -> Viewers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(10)
