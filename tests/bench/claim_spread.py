"""Strategy `claim` while no registry lives: nodes that share twenty cameras by themselves, evenly and each camera once.

A registry lived once: it put the cameras into the pool and told the nodes how they are configured.  Then, without one,
three nodes start within a second of each other, and in some runs one of them is killed: when its keys have run out and
been gone for ten seconds, the others return its cameras to the pool and share them.  A node that is stopped gives its
cameras back, so the next run finds them in the pool.

Most runs are of nodes that are their `link` alone, as processes on a Redis, several such sites at a time; in the last
ones whole agents record the cameras.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nodeagent.contract.ownership import LOCK_MS, RECONCILE_S
from nodeagent.infra.ownership.absences import GONE_S
from nodeagent.supervisor.link.live import OTHERS_COME_S
from tests.bench.harness import Result, result
from tests.support.agent import Agent
from tests.support.claiming import ClaimSite, claim_site
from tests.support.cluster import Cluster, Viewers
from tests.support.eventually import eventually

CAMERAS, NODES = 20, 3
#: Sites at a time, runs of each, and in how many of these one node is killed.
SITES, RUNS, KILLS = 5, 20, 2
QUICK_SITES, QUICK_RUNS, QUICK_KILLS = 2, 1, 1
#: Runs of whole agents; one is killed in each.
AGENT_RUNS = 3
#: Nodes of one run start within so long, seconds.
TOGETHER_S = 1.0
#: Seconds within which cameras must be shared, also after a kill.
SHARED_S = 180.0
#: Whole agents are looked at for so long, seconds, before their shares count: more than a turn of a node.
CALM_S = RECONCILE_S + 1.0
#: Seconds between two looks at who serves what.
LOOK_S = 0.1


@dataclass
class Seen:
    """What came of runs, with all nodes and after one of them was killed.

    Attributes:
        spreads, killed_spreads: of each run, the most cameras that a node had less the fewest.
        took_s, killed_took_s: from the start of the last node, or from the kill, until each camera was served once.
        twice: looks at which a camera was served by two nodes.
        grants: by camera and epoch, the lives of nodes that served it so.
    """

    spreads: list[int] = field(default_factory=list)
    killed_spreads: list[int] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    killed_took_s: list[float] = field(default_factory=list)
    twice: int = 0
    grants: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))


def run(quick: bool) -> Iterator[Result]:
    """Links alone, then whole agents; `quick` leaves these out."""
    sites, runs, kills = (QUICK_SITES, QUICK_RUNS, QUICK_KILLS) if quick else (SITES, RUNS, KILLS)
    with tempfile.TemporaryDirectory(prefix="claims-") as folder, ThreadPoolExecutor(sites) as threads:
        jobs = [threads.submit(_site, Path(folder) / f"s{n}", random.Random(n), runs, kills) for n in range(sites)]
        seen = [job.result() for job in jobs]
    yield from _links(seen)
    if not quick:
        yield from _agents()


def _site(folder: Path, chance: random.Random, runs: int, kills: int) -> Seen:
    seen = Seen()
    with claim_site(folder, NODES, CAMERAS) as site:
        for number in range(runs):
            _start(site, chance)
            _share(site, seen, seen.spreads, seen.took_s)
            if number >= runs - kills:
                victim = site.nodes[number % NODES]
                victim.kill9()
                _share(site, seen, seen.killed_spreads, seen.killed_took_s)
            site.stop_all()
    return seen


def _start(site: ClaimSite, chance: random.Random) -> None:
    at_s = sorted(chance.uniform(0.0, TOGETHER_S) for _ in site.nodes)
    began_s = time.monotonic()
    for node, due_s in zip(chance.sample(site.nodes, NODES), at_s, strict=True):
        time.sleep(max(0.0, began_s + due_s - time.monotonic()))
        node.start()


def _share(site: ClaimSite, seen: Seen, spreads: list[int], took_s: list[float]) -> None:
    """Wait until each camera is served, and note what is seen meanwhile."""
    began_s = time.monotonic()

    def shared() -> bool:
        served = site.served()
        by_camera = Counter(camera_id for one in served.values() for camera_id in one)
        seen.twice += any(count > 1 for count in by_camera.values())
        return sorted(by_camera.elements()) == site.cameras

    eventually(shared, within_s=SHARED_S, every_s=LOOK_S)
    took_s.append(time.monotonic() - began_s)
    served = site.served()
    spreads.append(_spread([len(one) for one in served.values()]))
    for life, cameras in served.items():
        for grant in cameras.items():
            seen.grants[grant].add(life)


def _spread(counts: Sequence[int]) -> int:
    return max(counts) - min(counts)


def _links(sites: Sequence[Seen]) -> Iterator[Result]:
    spreads = [spread for seen in sites for spread in seen.spreads]
    took = [seconds for seen in sites for seconds in seen.took_s]
    detail = (
        f"{len(spreads)} runs of {NODES} real `link` processes, {len(sites)} sites at a time, no registry, {CAMERAS} "
        "cameras in the pool; the most cameras of a node less the fewest"
    )
    yield result("links_spread_max", max(spreads), "cameras", "<= 1", detail)
    detail = (
        f"from the start of the last node; a node that comes waits {OTHERS_COME_S:g} s for others before it takes any"
    )
    yield result("links_share_p50", _percentile(took, 50), "s", "", detail)
    yield result("links_share_max", _percentile(took, 100), "s", "", detail)
    spreads = [spread for seen in sites for spread in seen.killed_spreads]
    took = [seconds for seen in sites for seconds in seen.killed_took_s]
    detail = f"{len(spreads)} of these runs after kill -9 of one node: the {NODES - 1} that are left"
    yield result("links_killed_spread_max", max(spreads), "cameras", "<= 1", detail)
    detail = f"from the kill; keys live for {LOCK_MS / 1000:g} s, and {GONE_S:g} s later their cameras go to the pool"
    yield result("links_killed_share_p50", _percentile(took, 50), "s", "", detail)
    yield result("links_killed_share_max", _percentile(took, 100), "s", "", detail)
    twice = sum(seen.twice for seen in sites)
    detail = f"looks, one each {LOOK_S:g} s until all were shared, at which a camera was in the snapshots of two nodes"
    yield result("links_served_twice", twice, "looks", "== 0", detail)
    shared = sum(len(lives) > 1 for seen in sites for lives in seen.grants.values())
    detail = f"of {sum(len(seen.grants) for seen in sites)} grants, those with which two lives of nodes served a camera"
    yield result("links_epochs_twice", shared, "epochs", "== 0", detail)


def _percentile(values: Sequence[float], share: float) -> float:
    return round(float(np.percentile(values, share)), 2)


def _agents() -> Iterator[Result]:
    """The same with captures; a camera counts for the node that has samples of it."""
    spreads, killed, took = [], [], []
    with (
        Cluster(nodes=NODES, registries=1, cameras=CAMERAS, strategy="claim") as cluster,
        Viewers([cluster.rtsp.url(name) for name in cluster.cameras]),
    ):
        cluster.bring_in()
        cluster.registries[0].kill9()
        for number in range(AGENT_RUNS):
            _restart(cluster)
            spreads.append(_captured(cluster))
            victim = sorted(cluster.agents)[number % NODES]
            cluster.kill_tree(victim)
            began_s = time.monotonic()
            killed.append(_captured(cluster))
            took.append(time.monotonic() - began_s)
    detail = (
        f"{AGENT_RUNS} runs of {NODES} whole agents that record {CAMERAS} RTSP cameras, no registry; all were stopped "
        "and started again; each camera is captured by one node"
    )
    yield result("agents_spread_max", max(spreads), "cameras", "<= 1", detail)
    detail = f"the same runs after kill -9 of all processes of one agent: the {NODES - 1} that are left"
    yield result("agents_killed_spread_max", max(killed), "cameras", "<= 1", detail)
    detail = "from the kill until each camera is captured by one node again"
    yield result("agents_killed_share_max", round(max(took), 2), "s", "", detail)


def _restart(cluster: Cluster) -> None:
    """Stop the agents that run, all together, and start all."""
    running = [agent for agent in cluster.agents.values() if agent.process is not None and agent.process.poll() is None]
    with ThreadPoolExecutor(NODES) as threads:
        list(threads.map(Agent.stop, running))
    for agent in cluster.agents.values():
        agent.start()


def _captured(cluster: Cluster) -> int:
    """Wait until each camera is captured by one node, and stays so for a turn; the spread."""
    calm: list[float] = []

    def is_calm() -> bool:
        if not cluster.each_once():
            calm.clear()
            return False
        calm.append(time.monotonic())
        return calm[-1] - calm[0] > CALM_S

    eventually(is_calm, within_s=SHARED_S, every_s=0.5)
    running = [
        node for node, agent in cluster.agents.items() if agent.process is not None and agent.process.poll() is None
    ]
    return _spread([len(cluster.on(node)) for node in running])
