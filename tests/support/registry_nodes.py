"""Nodes as the registry hears them: agents that report once a second, and a registry that looks twice as often."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.ownership import AgentReport, Owner
from nodeagent.contract.report import ChildRow, Kind, NodeReport, Phase
from nodeagent.contract.states import State
from registry.member import Accepted, Conflict
from registry.membership import Decision, Members, Witness

T = TypeVar("T")

#: Wall clock of the registry when its monotonic clock is 0, UTC ns.
WALL_NS = 1_700_000_000 * NS_PER_S
#: How often the registry looks, seconds; exact in binary, so that times can be compared.
TICK_S = 0.5


def row(
    camera_id: str,
    state: State = State.CAPTURING,
    age_s: float | None = 0.5,
    phase: Phase = Phase.RUNNING,
    *,
    samples: bool = True,
) -> ChildRow:
    return ChildRow(
        name=f"capture:{camera_id}",
        kind=Kind.CAPTURE,
        pid=7,
        phase=phase,
        state=state,
        state_since_ns=1,
        detail="",
        beat_age_s=age_s,
        restarts=0,
        started_ns=1,
        counters={"last_sample_ns": 2} if samples else {},
    )


@dataclass
class Agent:
    """One life of an agent."""

    node_id: str
    life: int = 1
    host: str = ""
    started_s: float = 0.0
    skew_s: float = 0.0
    draining: bool = False
    alive: bool = True
    seq: int = 0
    rows: dict[str, ChildRow] = field(default_factory=dict)

    @property
    def incarnation(self) -> str:
        return f"{self.life:016x}"

    def serve(self, *cameras: str) -> None:
        self.rows |= {camera: row(camera) for camera in cameras}

    def report(self, now_s: float) -> AgentReport:
        self.seq += 1
        node = NodeReport(
            node_id=self.node_id,
            host=self.host or f"host-{self.node_id}",
            version="1",
            agent_pid=100 + self.life,
            started_ns=WALL_NS + int((self.started_s + self.skew_s) * NS_PER_S),
            rows=tuple(self.rows.values()),
        )
        return AgentReport(
            report=node,
            incarnation=self.incarnation,
            seq=self.seq,
            sent_ns=WALL_NS + int((now_s + self.skew_s) * NS_PER_S),
            draining=self.draining,
        )


class Site:
    """A registry that leads, with the agents that report to it; time passes by `run`."""

    def __init__(self, *agents: Agent, leads: bool = True) -> None:
        self.now_s = 0.0
        self.agents = list(agents)
        self.members = Members(0.0)
        self.epoch = 0
        self.log: list[tuple[float, Decision]] = []
        self.witness = Witness()
        if leads:
            self.members.begin_term({}, 0.0)

    def hear(self, agent: Agent) -> Accepted | Conflict:
        return self.send(agent.report(self.now_s))

    def send(self, report: AgentReport) -> Accepted | Conflict:
        return self.members.report(report, WALL_NS + int(self.now_s * NS_PER_S), self.now_s)

    def grant(self, camera_id: str, agent: Agent) -> Owner:
        self.epoch += 1
        owner = Owner(node_id=agent.node_id, incarnation=agent.incarnation, epoch=self.epoch)
        self.members.granted(camera_id, owner, self.now_s)
        return owner

    def serve(self, agent: Agent, *cameras: str) -> None:
        for camera in cameras:
            self.grant(camera, agent)
        agent.serve(*cameras)

    def run(self, seconds: float, until: Callable[[Decision], bool] | None = None) -> list[Decision]:
        """Let time pass; what was decided.  Ends early after the turn in which `until` holds for a decision."""
        first, end_s = len(self.log), self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += TICK_S
            if self.now_s % 1.0 == 0.0:
                for agent in self.agents:
                    if agent.alive:
                        self.hear(agent)
            turn = self.members.tick(self.now_s, self.witness)
            self.log += [(self.now_s, decision) for decision in turn]
            if until is not None and any(until(decision) for decision in turn):
                break
        return [decision for _, decision in self.log[first:]]

    def log_only(self) -> list[Decision]:
        """All decisions so far, without their times."""
        return [decision for _, decision in self.log]

    def kill(self, *agents: Agent) -> None:
        for agent in agents:
            agent.alive = False


def of_kind(kind: type[T], decisions: Iterable[object]) -> list[T]:
    return [decision for decision in decisions if isinstance(decision, kind)]
