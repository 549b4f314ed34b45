"""What the demo does, step by step: a node is killed and comes back, then the leading registry is killed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, RenderableType

from registry.demo.cluster import LOOK_S, Cluster, NotShown
from registry.demo.draw import Taken, cameras_table, nodes_table, taken_table
from registry.demo.plan import NODES, REGISTRIES
from registry.demo.watch import Capture

#: Registries and agents load their parts at once on a machine that may be small, seconds.
START_S = 120.0
#: A dead node's cameras are elsewhere after some 4 s, another registry leads after some 5 s; a busy machine gets more.
PATIENCE_S = 60.0
#: So long it is watched that nothing moves after the leader's death: longer than a node may be silent, seconds.
WATCH_S = 6.0


@dataclass(frozen=True, slots=True)
class Shown:
    """What was seen, in figures.

    Attributes:
        orphans: cameras of the node that was killed.
        longest_s: from its kill to the first new sample of the last of them.
        lead_s: from the kill of the leading registry to another one that leads.
        started_anew: captures that were other processes after that; none, unless the machine was too busy for one.
    """

    orphans: int
    longest_s: float
    lead_s: float
    started_anew: int


class Course:
    """One run of the demo on a cluster that is prepared."""

    def __init__(self, cluster: Cluster, console: Console) -> None:
        self._cluster = cluster
        self._console = console

    def run(self) -> Shown:
        """All steps.

        Raises:
            NotShown: one did not come out in time.
            Unavailable: a program ended by itself, or a command failed.
        """
        self._begin()
        orphans, longest_s = self._kill_a_node(NODES[0])
        self._start_it_again(NODES[0])
        lead_s, started_anew = self._kill_the_leader()
        return Shown(orphans, longest_s, lead_s, started_anew)

    def _begin(self) -> None:
        cluster = self._cluster
        self._step(f"Starting {len(REGISTRIES)} registries and {len(NODES)} agents ...")
        cluster.start()
        cluster.until("all registries serve", START_S, lambda: all(cluster.leader(name) for name in REGISTRIES))
        cluster.until("all nodes are live", START_S, lambda: self._live() == set(NODES))
        self._step(f"registry import: {cluster.bring_in().splitlines()[0]}")
        cluster.until("every camera is captured once", START_S, cluster.once_each)
        self._show()

    def _kill_a_node(self, node: str) -> tuple[int, float]:
        """Returns how many cameras it had, and the seconds until the last of them was captured elsewhere."""
        cluster = self._cluster
        orphans = [camera for camera, who in cluster.captures().items() if who[0].node == node]
        if not orphans:
            raise NotShown(f"{node} has no camera that could move")
        killed_s, killed_ns = time.monotonic(), time.time_ns()
        cluster.programs[node].kill()
        self._step(f"kill -9 of all processes of {node}, which captured {', '.join(sorted(orphans))}")
        taken: dict[str, Taken] = {}

        def all_taken() -> bool:
            for camera, who in cluster.captures().items():
                new = [one for one in who if one.last_sample_ns > killed_ns and one.node != node]
                if camera in orphans and camera not in taken and new:
                    taken[camera] = Taken(camera, new[0], time.monotonic() - killed_s)
            return len(taken) == len(orphans)

        cluster.until(f"the cameras of {node} are captured elsewhere", PATIENCE_S, all_taken)
        cluster.until("every camera is captured once", PATIENCE_S, cluster.once_each)
        self._print(taken_table([taken[camera] for camera in sorted(taken)]))
        self._show()
        return len(orphans), max(one.after_s for one in taken.values())

    def _start_it_again(self, node: str) -> None:
        cluster = self._cluster
        self._step(f"Starting {node} again; cameras stay where they are, and would move slowly to even out the load")
        cluster.programs[node].start()
        cluster.until(f"{node} reports again", START_S, lambda: self._phase(node) in ("joining", "live"))
        cluster.until("every camera is captured once", PATIENCE_S, cluster.once_each)
        self._show()

    def _kill_the_leader(self) -> tuple[float, int]:
        """Returns the seconds until the other registry led, and how many captures were started anew."""
        cluster = self._cluster
        leader = next((name for name in REGISTRIES if cluster.leader(REGISTRIES[0]) == name), "")
        if not leader:
            raise NotShown("no registry leads")
        other = next(name for name in REGISTRIES if name != leader)
        before = _processes(cluster.captures())
        killed_s = time.monotonic()
        cluster.programs[leader].kill()
        self._step(f"kill -9 of {leader}, which led")
        cluster.until(f"{other} leads", PATIENCE_S, lambda: cluster.leader(other) == other)
        lead_s = time.monotonic() - killed_s
        self._step(f"{other} leads after {lead_s:.1f} s; watching for {WATCH_S:.0f} s whether anything moves ...")
        watched_s = time.monotonic() + WATCH_S
        while time.monotonic() < watched_s:
            time.sleep(LOOK_S)
        cluster.until("every camera is captured once", PATIENCE_S, cluster.once_each)
        after = _processes(cluster.captures())
        self._show()
        return lead_s, sum(after.get(camera) != pids for camera, pids in before.items())

    def _live(self) -> set[str]:
        return {node["node_id"] for node in self._cluster.nodes() if node["phase"] == "live"}

    def _phase(self, node_id: str) -> str:
        return next((str(node["phase"]) for node in self._cluster.nodes() if node["node_id"] == node_id), "")

    def _show(self) -> None:
        cluster = self._cluster
        self._print(nodes_table(cluster.nodes()))
        self._print(cameras_table(cluster.plan.camera_ids, cluster.owners(), cluster.captures()))

    def _print(self, what: RenderableType) -> None:
        self._console.print(what)

    def _step(self, text: str) -> None:
        self._console.print(f"\n{text}", style="bold", markup=False, highlight=False, soft_wrap=True)


def _processes(found: Mapping[str, Sequence[Capture]]) -> dict[str, list[int]]:
    return {camera: [one.pid for one in who] for camera, who in found.items()}
