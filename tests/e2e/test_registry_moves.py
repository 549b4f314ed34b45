"""Whole registries and whole agents on one machine: who records what when one of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from nodeagent.contract.ownership import LEASE_S
from nodeagent.contract.states import State
from nodeagent.infra.storage import Storage, init_pool
from tests.e2e.test_registry_serve import client, config, is_ready, serving, token
from tests.support.agent import Agent, of_registries, whole_node
from tests.support.eventually import eventually
from tests.support.media import make_video
from tests.support.services import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.timeout(300)]

CAMERAS = ("cam-1", "cam-2", "cam-3", "cam-4")


@dataclass
class Cluster:
    """Two registries and two agents; `urls` and `admin` open the registries."""

    folder: Path
    redis_url: str
    stack: ExitStack
    urls: list[str] = field(default_factory=list)
    registries: list[subprocess.Popen[str]] = field(default_factory=list)
    agents: dict[str, Agent] = field(default_factory=dict)
    admin: str = ""

    def start(self) -> None:
        configs = [config(self.folder, name, self.redis_url) for name in ("reg1", "reg2")]
        self.urls = [url for _, url in configs]
        self.admin = token(configs[0][0], "anna", "--role", "admin")
        tokens = {name: token(configs[0][0], name, "--node", name) for name in ("n1", "n2")}
        # All at once: each loads for longer than it begins.
        for path, _ in configs:
            self.registries.append(self.stack.enter_context(serving(path)))
        for name, secret in tokens.items():
            init_pool(self.folder / name / "pool")
            text = whole_node(name, of_registries(self.redis_url, self.urls, secret))
            self.agents[name] = self.stack.enter_context(Agent(self.folder / name, text))
        self.stack.callback(self.end)
        eventually(lambda: all(map(is_ready, self.urls)), within_s=60)

    def end(self) -> None:
        """End the registries, so that no agent waits for others to take its cameras, then all agents at once."""
        for registry in self.registries:
            registry.kill()
        for agent in self.agents.values():
            if agent.process is not None and agent.process.poll() is None:
                agent.process.send_signal(signal.SIGTERM)

    def people(self, at: int = 0) -> httpx.Client:
        return client(self.urls[at], self.admin)

    def captured(self) -> dict[str, list[tuple[str, int]]]:
        """By camera, the nodes that get its pictures, with the pid of its capture."""
        found: dict[str, list[tuple[str, int]]] = {}
        for name, agent in self.agents.items():
            for row in agent.rows() if agent.process is not None and agent.process.poll() is None else ():
                if row.name.startswith("capture:") and row.state is State.CAPTURING and row.counters["samples"]:
                    found.setdefault(row.name.removeprefix("capture:"), []).append((name, row.pid))
        return found

    def pass_time(self) -> None:
        """Longer than it would take to evict a node, also after a change of the leader."""
        until_s = time.monotonic() + 2 * LEASE_S + 2
        eventually(lambda: time.monotonic() > until_s, within_s=30)

    def each_once(self) -> bool:
        captured = self.captured()
        return sorted(captured) == sorted(CAMERAS) and all(len(where) == 1 for where in captured.values())


@pytest.fixture
def cluster(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("NODEAGENT_SHM_DIR", str(tmp_path / "shm"))
    video = make_video(tmp_path / "source.mp4", seconds=60)
    with ExitStack() as stack:
        made = Cluster(tmp_path, redis_url, stack)
        made.start()
        with made.people() as people:
            eventually(lambda: people.get("/cluster").json()["nodes"]["live"] == 2, within_s=60)
            drafts = [{"spec": {"camera_id": name, "record": {"url": str(video), "loop": True}}} for name in CAMERAS]
            assert people.post("/import", json={"cameras": drafts}).is_success
        eventually(made.each_once, within_s=60)
        yield made


def test_nothing_moves_when_leader_or_redis_are_lost_and_a_dead_nodes_cameras_are_recorded_elsewhere(
    cluster: Cluster, redis_server: RedisServer
) -> None:
    before = cluster.captured()
    assert sorted(len([1 for where in before.values() if where[0][0] == name]) for name in ("n1", "n2")) == [2, 2]
    leader = cluster.registries[0]
    leader.kill()
    leader.wait()
    with cluster.people(1) as people:
        eventually(lambda: people.get("/cluster").json()["leader"] == "reg2", within_s=30)
        cluster.pass_time()
        assert cluster.captured() == before
        redis_server.flush()
        cluster.pass_time()
        assert cluster.captured() == before
        redis_server.kill9()
        cluster.pass_time()
        redis_server.start()
        eventually(lambda: people.get("/cluster").json()["leader"] == "reg2", within_s=30)
        cluster.pass_time()
        assert cluster.captured() == before
        victim = cluster.agents["n1"]
        os.killpg(os.getpgid(victim.pid), signal.SIGKILL)
        assert victim.process is not None
        victim.process.wait()
        killed_s = time.monotonic()
        eventually(cluster.each_once, within_s=60)
        print(f"recorded elsewhere after {time.monotonic() - killed_s:.1f} s")
        after = cluster.captured()
        assert {where[0][0] for where in after.values()} == {"n2"}
        assert {camera: where for camera, where in before.items() if where[0][0] == "n2"}.items() <= after.items()
        listed = people.get("/assignments").json()["assignments"]
        assert {place["owner"]["node_id"] for place in listed} == {"n2"}
        # Its clips carry the epoch of the grant.
        epochs = {place["camera_id"]: place["owner"]["epoch"] for place in listed}
        pools = cluster.agents["n2"].settings.pools
        eventually(
            lambda: all(
                epochs[camera] in {clip.clip.epoch for clip in Storage(pools).clips(camera, 0, 2**62)}
                for camera in CAMERAS
            ),
            within_s=30,
        )


def test_a_node_that_is_drained_is_left_without_cameras(cluster: Cluster) -> None:
    with cluster.people() as people:
        answer = people.post("/nodes/n1/drain", json={})
        assert answer.is_success, answer.text
        eventually(lambda: people.get("/nodes/n1").json()["node"]["drain"]["done"], within_s=60)
        eventually(cluster.each_once, within_s=10)
        assert {where[0][0] for where in cluster.captured().values()} == {"n2"}
