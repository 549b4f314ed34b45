"""Reports as they come from agents: taken at once, judged by the loop a moment later.

Whoever reports gets the answer that the loop found for this life's report before: of two agents with one id, the one
that is not the node is told so from its second report on.  So no request ever waits for the loop.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from nodeagent.contract.ids import NodeId
from nodeagent.contract.ownership import AgentReport
from registry.member import Accepted, Conflict

#: Reports that wait at most, some seconds of ten thousand nodes; the oldest go first, newer ones of their nodes follow.
WAITING_MOST = 50_000
#: Lives whose last verdict is remembered; the oldest go first.
VERDICTS_MOST = 50_000

Verdict = Accepted | Conflict


@dataclass(frozen=True, slots=True)
class Arrived:
    """A report, and the monotonic time and wall clock, UTC ns, at which it came."""

    report: AgentReport
    at_s: float
    wall_ns: int


class Inbox:
    """Reports that wait, and what became of the last one of each life."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Arrived] = deque(maxlen=WAITING_MOST)
        self._verdicts: dict[tuple[NodeId, str], Verdict] = {}

    def put(self, arrived: Arrived) -> Verdict | None:
        """Take a report in; returns the verdict on the one before of this life, none: there is none."""
        self._waiting.append(arrived)
        return self._verdicts.get((arrived.report.report.node_id, arrived.report.incarnation))

    def take(self) -> Iterator[Arrived]:
        """What waits now, in the order in which it came."""
        for _ in range(len(self._waiting)):
            yield self._waiting.popleft()

    def judged(self, report: AgentReport, verdict: Verdict) -> None:
        """Keep what the next report of this life is answered with."""
        key = (report.report.node_id, report.incarnation)
        self._verdicts.pop(key, None)
        self._verdicts[key] = verdict
        while len(self._verdicts) > VERDICTS_MOST:
            del self._verdicts[next(iter(self._verdicts))]
