"""Agents and registries on hosts of their own, and roads between them that are cut and healed.

One cluster for all tests: each begins with every road open and every camera on one node.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import redis
from sqlalchemy import select

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.ownership import LEASE_S, LOCK_MS, LOCK_PREFIX
from nodeagent.infra.database import open_database, reading
from nodeagent.infra.ownership.port import LEADER_MS
from nodeagent.infra.storage import Storage, StoredClip
from nodeagent.infra.tables import alarm
from nodeagent.judge.store import Account, read_account
from tests.support.accounting import account
from tests.support.cluster import FOREVER_NS, SERVICES, Cluster, RegistryServer
from tests.support.eventually import eventually
from tests.support.log_lines import first
from tests.support.namespaces import Hosts, need_namespaces
from tests.support.rtsp import need_rtsp

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.timeout(300)]

CAMERAS = 4
#: Clips, and one red square a loop, seconds.
CLIP_S, LOOP_S = 2.0, 12.0
#: From the cut until the registry granted the cameras elsewhere, seconds: a silence that begins with the last report
#: before it, the registry's turns, and a machine that is busy.
GRANTED_S = LEASE_S + 3.0
#: How long both nodes record at least, seconds.
OVERLAP_S = 4.0
#: Seconds within which all is as it was, when the roads are open again, on a busy machine.
HEALED_S = 60.0
#: Frames are 0.1 s apart, and a capture that begins or ends may drop one.
SEAM_S = 0.25
#: Samples per second of a camera.
SAMPLES_PER_S = 5.0


class Apart:
    """The cluster and its hosts, with the words of the tests."""

    def __init__(self, cluster: Cluster, hosts: Hosts) -> None:
        self.cluster, self.hosts = cluster, hosts

    def begin(self) -> dict[str, list[tuple[str, int]]]:
        """Open roads, every camera on one node; returns who captures what in which process."""
        self.hosts.heal()
        eventually(self.none_silent, within_s=HEALED_S, every_s=0.2)
        eventually(self.cluster.each_once, within_s=HEALED_S, every_s=0.2)
        return self.cluster.captured()

    def none_silent(self) -> bool:
        """Whether the registry hears every node; one that was dead is given no cameras for a while."""
        nodes = self.cluster.ask("/cluster")["nodes"]
        return nodes["live"] + nodes["joining"] == len(self.cluster.agents)

    def fuller(self) -> tuple[str, str]:
        """The node with most cameras, and the other."""
        one, other = sorted(self.cluster.agents, key=lambda node: -len(self.cluster.on(node)))
        return one, other

    def cut(self, one: str, others: Sequence[str]) -> int:
        """Cut the roads between one and others both ways; returns when, UTC ns."""
        at_ns = time.time_ns()
        for other in others:
            self.hosts.cut(one, other)
        return at_ns

    def pass_time(self, seconds: float) -> None:
        """Let it be as it is for a while: what is shown is that nothing happens."""
        until_s = time.monotonic() + seconds
        eventually(lambda: time.monotonic() >= until_s, within_s=seconds + 5)

    def granted_s(self, cameras: Sequence[str], at_ns: int) -> float:
        """Seconds from a moment until all of these cameras were granted anew."""
        told = self.cluster.registries_logged()
        grants = [first(told, "camera_granted", at_ns, camera=name) for name in cameras]
        return max((grant.at_ns - at_ns) / NS_PER_S if grant else float("inf") for grant in grants)

    def clips(self, node: str, camera: str) -> list[StoredClip]:
        return Storage(self.cluster.agents[node].settings.pools).clips(camera, 0, FOREVER_NS)

    def all_clips(self, camera: str) -> list[StoredClip]:
        return [clip for node in self.cluster.agents for clip in self.clips(node, camera)]

    def written(self, node: str, cameras: Sequence[str]) -> int:
        """Bytes of these cameras on a node's disk, unfinished clips included."""
        folder = self.cluster.folder / node / "pool" / "clips"
        return sum(path.stat().st_size for name in cameras for path in (folder / name).rglob("*.mp4"))

    def judged(self, node: str, camera: str) -> Account:
        return read_account(self.cluster.agents[node].settings.node.state_dir, camera)

    def whole(self, cameras: Sequence[str], from_ns: int) -> bool:
        """Whether the clips of all nodes together leave no hole since a moment, up to the newest clip."""
        for name in cameras:
            found = [clip for clip in self.all_clips(name) if clip.end_ns > from_ns]
            holes = account(found, (), seam_s=SEAM_S).holes
            assert found, f"{name}: no clip"
            assert not holes, f"{name}: {[(start - from_ns, end - from_ns) for start, end in holes]}"
        return True

    def leaders(self) -> list[str]:
        """Whom each registry takes for the leader."""
        return [self.asked(registry) for registry in self.cluster.registries]

    def asked(self, registry: RegistryServer) -> str:
        """Whom a registry takes for the leader."""
        with self.cluster.people(registry) as people:
            return str(people.get("/cluster").json()["leader"])


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    need_namespaces()
    need_rtsp()
    folder: Path = tmp_path_factory.mktemp("apart")
    with (
        Hosts(["n1", "n2", "reg1", "reg2"], SERVICES) as hosts,
        Cluster(
            cameras=CAMERAS,
            hosts=hosts,
            database_url=f"sqlite:///{folder}/all.db",
            sections=f"[capture]\nclip_s = {CLIP_S}\n",
            loop_s=LOOP_S,
        ) as cluster,
    ):
        cluster.bring_in()
        yield Apart(cluster, hosts)


def test_a_node_cut_off_from_all_but_its_cameras_records_on_and_lets_go_when_it_is_back(apart: Apart) -> None:
    before = apart.begin()
    apart.cluster.all_live()
    cluster, (gone, heir) = apart.cluster, apart.fuller()
    lost = cluster.on(gone)
    at_ns = apart.cut(gone, ["redis", "rabbit", "reg1", "reg2", heir])
    eventually(lambda: cluster.on(heir) == cluster.cameras, within_s=HEALED_S)
    assert apart.granted_s(lost, at_ns) <= GRANTED_S
    both, written = cluster.captured(), apart.written(gone, lost)
    apart.pass_time(OVERLAP_S)
    assert apart.written(gone, lost) > written
    apart.hosts.heal()
    eventually(lambda: cluster.each_once() and not cluster.on(gone) and apart.none_silent(), within_s=HEALED_S)
    after = cluster.captured()
    # Whoever captured it there went on, also through the return of the other.
    assert after == {name: [place for place in both[name] if place[0] == heir] for name in cluster.cameras}
    assert all(after[name] == before[name] for name in cluster.cameras if name not in lost)
    eventually(lambda: apart.whole(cluster.cameras, at_ns - 3 * NS_PER_S), within_s=20)
    for name in lost:
        _is_judged_once(apart, heir, name)


def _is_judged_once(apart: Apart, judge: str, camera: str) -> None:
    """Nobody's clips of a moment that another's samples were judged of count a second time."""
    clips = apart.all_clips(camera)
    made = len(clips)

    def heard() -> bool:
        books = apart.judged(judge, camera)
        assert books.clips + books.late + books.fenced >= made, books
        return True

    eventually(heard, within_s=HEALED_S, every_s=0.5)
    spans = sorted((clip.clip.start_ns, clip.end_ns) for clip in apart.all_clips(camera))
    covered = account(apart.all_clips(camera), ())
    assert covered.twice_s >= OVERLAP_S
    most = (spans[-1][1] - spans[0][0]) / NS_PER_S * SAMPLES_PER_S
    # Each clip that comes while this looks, and each beginning of a capture, may add some.
    assert apart.judged(judge, camera).samples <= most + 2 * SAMPLES_PER_S * CLIP_S
    engine = open_database(apart.cluster.agents[judge].settings.database_url)
    try:
        with reading(engine, "alarms") as connection:
            begun = sorted(connection.execute(select(alarm.c.started_ns).where(alarm.c.camera_id == camera)).scalars())
    finally:
        engine.dispose()
    assert all(late - early > (LOOP_S - 2) * NS_PER_S for early, late in pairwise(begun)), begun


def test_neither_a_node_that_hears_no_redis_nor_a_leader_that_is_cut_off_costs_a_camera_anything(apart: Apart) -> None:
    before = apart.begin()
    cluster, (deaf, _) = apart.cluster, apart.fuller()
    own = [LOCK_PREFIX + name for name in cluster.on(deaf)]
    eventually(lambda: len(set(apart.leaders())) == 1, within_s=HEALED_S, every_s=0.2)
    leader = apart.leaders()[0]
    (other,) = (registry for registry in cluster.registries if registry.name != leader)
    with redis.Redis.from_url(cluster.redis.url) as client:
        eventually(lambda: client.exists(*own) == len(own))
        apart.hosts.deafen(deaf, to="redis")
        apart.cut(leader, ["redis", *cluster.agents])
        eventually(lambda: apart.asked(other) == other.name, within_s=LEADER_MS / 1000 + 10, every_s=0.2)
        eventually(lambda: client.exists(*own) == 0, within_s=LOCK_MS / 1000 + 10, every_s=0.2)
        # By now the new leader has borne more silence than makes a node dead.
        assert cluster.captured() == before
        apart.hosts.heal()
        eventually(lambda: client.exists(*own) == len(own), within_s=HEALED_S, every_s=0.2)
    eventually(lambda: apart.leaders() == [other.name] * 2, within_s=HEALED_S, every_s=0.2)
    apart.pass_time(LEASE_S)
    assert apart.none_silent()
    assert apart.leaders() == [other.name] * 2
    assert cluster.captured() == before


def test_a_node_that_no_registry_hears_reads_in_redis_who_has_its_cameras_and_no_second_is_lost(apart: Apart) -> None:
    before = apart.begin()
    # Whoever was dead a moment ago gets no cameras yet.
    apart.cluster.all_live()
    cluster, (gone, _) = apart.cluster, apart.fuller()
    lost = cluster.on(gone)
    at_ns = apart.cut(gone, ["reg1", "reg2"])
    eventually(lambda: cluster.each_once() and not cluster.on(gone), within_s=HEALED_S)
    assert apart.granted_s(lost, at_ns) <= GRANTED_S
    after = cluster.captured()
    assert all(after[name] == before[name] for name in cluster.cameras if name not in lost)
    apart.hosts.heal()
    eventually(apart.none_silent, within_s=HEALED_S, every_s=0.2)
    eventually(lambda: apart.whole(lost, at_ns - 3 * NS_PER_S), within_s=20)
    assert cluster.captured() == after
