"""The demo's live page: stages with rate and lag, cameras, the last alarms, and what happened.

Drawing only; every figure is read from the status board and the alarm records.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from nodeagent.cli.status_view import behind_s
from nodeagent.contract.report import ChildRow, Kind, NodeReport, Phase
from nodeagent.contract.states import MEANING
from nodeagent.infra.alarm_records import AlarmRow
from nodeagent.infra.times import local_time

#: Stages whose throughput is shown, in samples.
RATED = frozenset({Kind.CAPTURE, Kind.INFERENCE, Kind.JUDGE})
#: Reports over which a rate is taken: clips come every 5 s, so a shorter time would show bursts.
RATE_WINDOW = 40
#: Lines kept of what happened.
EVENTS_SHOWN = 6
#: Alarms shown, newest first.
ALARMS_SHOWN = 5


@dataclass(slots=True)
class Rates:
    """Throughput of each child over the last reports."""

    _seen: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)

    def note(self, report: NodeReport, now_s: float) -> None:
        """Take in one report made at `now_s`, monotonic seconds."""
        for row in report.rows:
            if row.kind in RATED:
                history = self._seen.setdefault(row.name, deque(maxlen=RATE_WINDOW))
                history.append((now_s, row.counters["samples"]))

    def per_second(self, name: str) -> float | None:
        """Events per second of one child; none before two reports."""
        history = self._seen.get(name)
        if not history or len(history) < 2 or history[-1][0] <= history[0][0]:
            return None
        return (history[-1][1] - history[0][1]) / (history[-1][0] - history[0][0])


def _state(row: ChildRow) -> Text:
    if row.phase is not Phase.RUNNING:
        return Text(row.phase.value, style="yellow")
    return Text(row.state.value, style="red" if MEANING[row.state].problem else "green")


def _stages(report: NodeReport, rates: Rates, now_ns: int) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in ("process", "pid", "state", "samples/s", "behind", "done", "restarts"):
        table.add_column(name, no_wrap=True, min_width=len(name))
    for row in report.rows:
        rate = rates.per_second(row.name)
        behind = behind_s(row, now_ns)
        table.add_row(
            row.name,
            str(row.pid or "-"),
            _state(row),
            f"{rate:.1f}" if rate is not None else "",
            f"{behind:.1f} s" if behind is not None else "",
            _done(row),
            str(row.restarts) if row.restarts else "",
        )
    return table


def _done(row: ChildRow) -> str:
    match row.kind:
        case Kind.CAPTURE:
            return f"{row.counters['clips_made']} clips"
        case Kind.INFERENCE:
            return f"{row.counters['clips']} clips, {row.counters['boxes']} boxes"
        case Kind.JUDGE:
            return f"{row.counters['clips']} clips, {row.counters['alarms']} alarm messages"
        case Kind.ALARM:
            return f"{row.counters['pushed']} pushed, {row.counters['waiting']} waiting"
        case _:
            return ""


def _alarms(alarms: Sequence[AlarmRow], zone: ZoneInfo) -> RenderableType:
    if not alarms:
        return Text("none yet: a replay reaches 15 s past the violation, so the first push takes a while", style="dim")
    lines = Text()
    for alarm in alarms[:ALARMS_SHOWN]:
        when = local_time(alarm.confirmed_ns, zone).partition(" ")[2]
        lines.append(f"{when} {alarm.camera_id} {alarm.rule_id} ({alarm.zone}): {alarm.state.value}\n")
        if alarm.replay_path:
            lines.append(f"  {alarm.replay_path}\n", style="dim")
    lines.rstrip()
    return lines


def page(
    report: NodeReport | None,
    rates: Rates,
    alarms: Sequence[AlarmRow],
    events: Sequence[str],
    left_s: float,
    zone: ZoneInfo,
    now_ns: int,
) -> RenderableType:
    """The whole page; `left_s` is the time until the demo ends, `now_ns` the wall clock, UTC ns."""
    stages: RenderableType = _stages(report, rates, now_ns) if report else Text("starting ...", style="dim")
    return Group(
        Panel(stages, title=f"stages ({left_s:.0f} s left)", border_style="cyan"),
        Panel(_alarms(alarms, zone), title="alarms", border_style="cyan"),
        Panel(Text("\n".join(events[-EVENTS_SHOWN:])), title="what happened", border_style="cyan"),
    )
