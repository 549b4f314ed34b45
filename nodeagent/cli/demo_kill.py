"""Half-way through the demo one stage is killed with -9, and its recovery is watched.

Pure but for the kill itself: what it sees comes in with each report.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field

from nodeagent.contract.report import ChildRow, Kind, NodeReport, Phase

#: The stage that is killed: every camera depends on it, so that a loss would show in every ledger row.
VICTIM = Kind.INFERENCE
#: Counter that grows when the stage works again.
WORK_COUNTER = "clips"


@dataclass(slots=True)
class Killer:
    """Kills the victim once `due_s` have passed and notes how long its work stood still."""

    due_s: float
    killed_at_s: float | None = None
    killed_pid: int = 0
    back_at_s: float | None = None
    working_at_s: float | None = None
    _before: int = field(default=0)

    def step(self, report: NodeReport, past_s: float) -> list[str]:
        """Act on one report made `past_s` seconds into the demo; return what there is to say."""
        row = next((row for row in report.rows if row.kind is VICTIM), None)
        if row is None or self.working_at_s is not None:
            return []
        if self.killed_at_s is None:
            return self._kill(row, past_s) if past_s >= self.due_s and row.phase is Phase.RUNNING else []
        return self._watch(row, past_s)

    def _kill(self, row: ChildRow, past_s: float) -> list[str]:
        os.kill(row.pid, signal.SIGKILL)
        self.killed_at_s, self.killed_pid, self._before = past_s, row.pid, row.counters[WORK_COUNTER]
        return [f"kill -9 {row.pid} ({row.name}): its unfinished clips stay with the broker"]

    def _watch(self, row: ChildRow, past_s: float) -> list[str]:
        said: list[str] = []
        if self.back_at_s is None and row.pid != self.killed_pid and row.phase is Phase.RUNNING:
            self.back_at_s = past_s
            said.append(f"{row.name} is back as pid {row.pid} after {past_s - self._killed_s:.1f} s")
        if row.counters[WORK_COUNTER] > self._before:
            self.working_at_s = past_s
            said.append(f"{row.name} finished a clip again {past_s - self._killed_s:.1f} s after the kill")
        return said

    @property
    def _killed_s(self) -> float:
        return self.killed_at_s or 0.0

    @property
    def summary(self) -> str:
        """One sentence for the report; empty when nothing was killed."""
        if self.killed_at_s is None:
            return ""
        text = f"{self.killed_at_s:.0f} s into the run, {VICTIM.value} (pid {self.killed_pid}) was killed with -9"
        if self.working_at_s is None:
            return f"{text}; it had not finished a clip again when the demo ended."
        return f"{text}; it had finished a clip again {self.working_at_s - self._killed_s:.1f} s later."
