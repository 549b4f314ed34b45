"""The node's report: its status board, with what it has, what its cameras cost and which of them it serves."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from nodeagent import __version__
from nodeagent.contract.ids import CameraId
from nodeagent.contract.ownership import AgentReport, Holding
from nodeagent.contract.report import ChildRow, Kind, NodeReport
from nodeagent.contract.states import State
from nodeagent.infra.board import Board
from nodeagent.infra.clock import Clock
from nodeagent.infra.settings.registry import RegistrySettings
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.wanted import Grant
from nodeagent.supervisor.link import machine
from nodeagent.supervisor.link.costs import Costs, EngineSpeed, Reading
from nodeagent.supervisor.link.unfinished import Leftovers


class Reports:
    """Makes one report after the other; for one thread."""

    def __init__(self, settings: Settings, registry: RegistrySettings, memory_dir: Path, board: Board, clock: Clock):
        self._settings = settings
        self._registry = registry
        self._memory_dir = memory_dir
        self._board = board
        self._clock = clock
        self._host = socket.gethostname()
        self._costs = Costs()
        self._speed = EngineSpeed()
        self._leftovers = Leftovers(settings, lambda: board.report(clock.monotonic_s(), __version__, self._host))

    def make(self, incarnation: str, seq: int, grants: Mapping[CameraId, Grant], *, leaving: bool) -> AgentReport:
        """The next report.

        Args:
            incarnation: this life of the agent.
            seq: number of the report in this life.
            grants: what is served.
            leaving: whether this node is about to stop.
        """
        now_s = self._clock.monotonic_s()
        report = self._board.report(now_s, __version__, self._host)
        in_rings = machine.ring_bytes(self._memory_dir)
        self._measure(report, in_rings, now_s)
        return AgentReport(
            report=report,
            incarnation=incarnation,
            seq=seq,
            sent_ns=self._clock.wall_ns(),
            labels=self._registry.labels,
            # The only node there is takes every camera, as it does without a registry: too many are recorded late, one
            # that fits nowhere would be recorded by nobody.
            capacity=None
            if self._registry.inside
            else machine.capacity(
                self._registry.capacity,
                self._memory_dir,
                len(self._settings.pools),
                self._infer_per_s(),
                in_rings.total(),
            ),
            costs=self._costs.of(grants),
            holds=holdings(report, grants),
            models=tuple(sorted(model.name for model in self._settings.models)),
            draining=leaving,
            unfinished=self._leftovers.left(serves=bool(grants)),
        )

    def close(self) -> None:
        """Make no more."""
        self._leftovers.close()

    def _measure(self, report: NodeReport, in_rings: Mapping[str, int], now_s: float) -> None:
        inference = [row.counters for row in report.rows if row.kind is Kind.INFERENCE]
        self._speed.add(now_s, sum(c["samples"] for c in inference), sum(c["infer_ms"] for c in inference))
        for row in report.rows:
            camera_id = camera_of(row)
            taken_s = machine.cpu_s(row.pid) if camera_id and row.pid else None
            if camera_id is None or taken_s is None:
                continue
            self._costs.add(
                camera_id,
                Reading(
                    at_s=now_s,
                    pid=row.pid,
                    cpu_s=taken_s,
                    samples=row.counters["samples"],
                    written=row.counters["bytes"] + row.counters["analyse_bytes"],
                    ring_bytes=in_rings.get(camera_id, 0),
                    delivers=row.state is State.CAPTURING,
                ),
            )

    def _infer_per_s(self) -> float | None:
        speed = self._speed.per_s
        # Workers of one machine share its cores: more of them than cores are not faster.
        workers = min(self._settings.inference.workers, len(os.sched_getaffinity(0)))
        return None if speed is None else speed * workers


def camera_of(row: ChildRow) -> CameraId | None:
    """The camera of a capture's row; None for other children."""
    return row.name.partition(":")[2] if row.kind is Kind.CAPTURE else None


def holdings(report: NodeReport, grants: Mapping[CameraId, Grant]) -> tuple[Holding, ...]:
    """What is served, with the highest epoch that is in use.

    A capture whose journal or clips know a later epoch than the granted one records with that, and the next grant has
    to be above it.
    """
    in_use = {camera_of(row): row.counters["epoch"] for row in report.rows if row.kind is Kind.CAPTURE}
    return tuple(
        Holding(camera_id=camera_id, epoch=max(grant.epoch, in_use.get(camera_id, 0)), version=grant.version)
        for camera_id, grant in sorted(grants.items())
    )
