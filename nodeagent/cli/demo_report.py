"""The demo's report: one HTML file without outside links, and the same in a few lines of text."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from nodeagent import __version__
from nodeagent.cli.demo_ledger import CameraLedger, balanced
from nodeagent.contract.ids import NS_PER_MS

#: What each step of an alarm's way is, in order: name of its time stamp, what it is called, what happened until then.
WAY: tuple[tuple[str, str, str], ...] = (
    ("closed", "clip closed", "the rest of the 5 s clip was recorded, synced to disk and renamed"),
    ("inference_started", "queued", "the clip task travelled over the bus and waited for the worker"),
    ("inference_done", "inference", "samples read, boxes found"),
    ("judged", "judge", "detections travelled, objects were tracked, the rule confirmed"),
    ("received", "alarm row", "the alarm was written to the database"),
    ("replay_ready", "replay", "the 15 s after the violation were recorded, the replay cut and decoded once"),
    ("pushed", "push", "the target answered 2xx"),
)
#: Always said: nothing here may be taken for shown.
NOT_SHOWN = (
    "RabbitMQ and MySQL: the demo runs on the embedded default (private Redis with Streams, SQLite).",
    "A GPU: the model runs on ONNX Runtime on the CPU.",
    "A second server: ownership by a registry and failover between nodes.",
)
LICENCE = (
    "The clip is a transcode of OpenCV's sample vtest.avi (Apache-2.0 / BSD-3-Clause); the demo model knows whole"
    " pedestrians from a raised outdoor camera and nothing else: bring your own for production."
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an alarm's way: `ms` since the step before, `share` of the whole in percent."""

    name: str
    ms: float
    share: float
    what: str


@dataclass(frozen=True, slots=True)
class ShownAlarm:
    """The alarm that the report shows in full."""

    camera_id: str
    rule_id: str
    rule_kind: str
    zone: str
    severity: str
    confirmed: str
    confirmed_ns: int
    replay_path: Path
    replay_s: float
    partial: str
    snapshot_path: Path
    timings: Mapping[str, int]
    push: str


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """All that a run of the demo found out."""

    folder: Path
    time_zone: str
    seconds: float
    alarm: ShownAlarm | None
    first_push_s: float | None
    alarms: Sequence[Mapping[str, str]]
    ledger: Sequence[CameraLedger]
    kill: str
    #: Whether the reader's own source or model was used.
    own_source: bool
    problems: Sequence[str]


def way(timings: Mapping[str, int], confirmed_ns: int) -> list[Step]:
    """The steps from the confirming sample to the push, each with its share of the whole."""
    known = [(key, name, what) for key, name, what in WAY if key in timings]
    if not known:
        return []
    whole_ms = max(1e-3, (timings[known[-1][0]] - confirmed_ns) / NS_PER_MS)
    steps, before_ns = [], confirmed_ns
    for key, name, what in known:
        ms = (timings[key] - before_ns) / NS_PER_MS
        steps.append(Step(name, ms, max(0.0, 100 * ms / whole_ms), what))
        before_ns = timings[key]
    return steps


def headline(outcome: DemoOutcome) -> str:
    """One sentence on how it went."""
    if outcome.alarm is None:
        return "No alarm with a verified replay was pushed"
    pushed = sum(1 for row in outcome.alarms if row["state"] == "pushed" and row["replay_s"])
    return f"{pushed} alarm{'s' if pushed != 1 else ''} pushed, each with a verified replay"


def balance(ledger: Sequence[CameraLedger]) -> str:
    """Whether made, announced and judged agree, in words."""
    if not any(row.clips_made for row in ledger):
        return "Nothing was recorded."
    if balanced(ledger):
        return (
            "The ledger balances: every clip on disk was announced and judged once, every sample expected was judged."
        )
    return "The ledger does not balance: see the rows above."


def not_shown(outcome: DemoOutcome) -> list[str]:
    """What the reader must not take for shown."""
    lines = list(NOT_SHOWN)
    if not outcome.kill:
        lines.append("Recovery of a killed stage.")
    if outcome.own_source:
        lines.append("How good your model is: the rule here fires on anything that it finds.")
    return lines


def write_report(outcome: DemoOutcome) -> Path:
    """Write `report.html` into the demo's folder and return its path."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
    )
    path = outcome.folder / "report.html"
    path.write_text(environment.get_template("demo_report.html").render(_context(outcome)), encoding="utf-8")
    return path


def _context(outcome: DemoOutcome) -> dict[str, Any]:
    shown = outcome.alarm
    first = f" The first push came {outcome.first_push_s:.0f} s after the start." if outcome.first_push_s else ""
    return {
        "headline": headline(outcome),
        "summary": f"{len(outcome.ledger)} camera(s) for {outcome.seconds:.0f} s on one machine.{first}",
        "time_zone": outcome.time_zone,
        "alarm": None if shown is None else _alarm_context(shown),
        "no_alarm": " ".join(outcome.problems) or "Nothing broke a rule within the time given.",
        "alarms": outcome.alarms,
        "kill": outcome.kill,
        "ledger": outcome.ledger,
        "balanced": balanced(outcome.ledger),
        "balance": balance(outcome.ledger),
        "not_shown": not_shown(outcome),
        "version": __version__,
        "folder": str(outcome.folder),
        "licence": LICENCE,
    }


def _alarm_context(shown: ShownAlarm) -> dict[str, Any]:
    return {
        "camera_id": shown.camera_id,
        "rule_id": shown.rule_id,
        "rule_kind": shown.rule_kind,
        "zone": shown.zone,
        "severity": shown.severity,
        "confirmed": shown.confirmed,
        "partial": shown.partial,
        "replay_s": shown.replay_s,
        "picture": base64.b64encode(shown.snapshot_path.read_bytes()).decode(),
        "replay": base64.b64encode(shown.replay_path.read_bytes()).decode(),
        "way": way(shown.timings, shown.confirmed_ns),
        "push": shown.push,
    }


def pretty_push(headers: Mapping[str, str], body: bytes) -> str:
    """A received push as text: its headers, then its JSON."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\n".join([*lines, "", json.dumps(json.loads(body), indent=2, ensure_ascii=False)])
