"""Draws alarms with rich."""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from rich.table import Table
from rich.text import Text

from nodeagent.contract.ids import NS_PER_MS, NS_PER_S
from nodeagent.infra.alarm_records import AlarmRow, AlarmState
from nodeagent.infra.times import local_time

#: Colours of states; the others are plain.
_STYLE = {AlarmState.PUSHED: "green", AlarmState.RECORDED: "green", AlarmState.QUARANTINED: "bold red"}


def table(rows: Sequence[AlarmRow], zone: ZoneInfo) -> Table:
    """One line per alarm, in the order given."""
    drawn = Table(title=f"{len(rows)} alarms, times {zone.key}", title_justify="left")
    for name in ("no.", "confirmed", "camera", "rule / zone", "severity", "state", "replay", "pushes"):
        drawn.add_column(name, overflow="fold")
    for row in rows:
        drawn.add_row(
            str(row.id),
            local_time(row.confirmed_ns, zone),
            Text(row.camera_id),
            Text(row.summary or f"{row.rule_id} / {row.zone}"),
            row.severity,
            Text(_state(row), style=_STYLE.get(row.state, "")),
            _replay(row),
            _pushes(row),
        )
    return drawn


def card(row: AlarmRow, zone: ZoneInfo) -> Table:
    """All that is known of one alarm."""
    drawn = Table(title=f"Alarm {row.id}, times {zone.key}", title_justify="left", show_header=False)
    drawn.add_column("what", style="bold")
    drawn.add_column("value", overflow="fold")
    for what, value in _facts(row, zone):
        if value:
            drawn.add_row(what, Text(value))
    return drawn


def _state(row: AlarmRow) -> str:
    why = "shadow" if row.shadow else row.untold
    return f"{row.state}, {why}" if why else row.state


def _replay(row: AlarmRow) -> str:
    if row.replay_length_ns is None:
        return f"none: {row.partial_reason}" if row.partial else ""
    return f"{row.replay_length_ns / NS_PER_S:.1f} s" + (" partial" if row.partial else "")


def _pushes(row: AlarmRow) -> str:
    if not row.pushes:
        return ""
    accepted = sorted({push.target for push in row.pushes if push.accepted})
    tries = f"{len(row.pushes)} tr{'ies' if len(row.pushes) != 1 else 'y'}"
    return f"{', '.join(accepted)} ({tries})" if accepted else f"{tries}, last: {row.pushes[-1].error}"


def _facts(row: AlarmRow, zone: ZoneInfo) -> list[tuple[str, str]]:
    state = f"{row.state} {row.state_reason}".strip()
    ended = local_time(row.ended_ns, zone) if row.ended_ns is not None else "not yet"
    facts = [
        ("key", row.dedup_key),
        ("summary", row.summary),
        ("state", state),
        ("camera", f"{row.camera_id} on node {row.node_id}, epoch {row.epoch}"),
        ("rule", f"{row.rule_id} ({row.rule_kind}), zone {row.zone}, {row.severity}"),
        ("started", local_time(row.started_ns, zone)),
        ("confirmed", local_time(row.confirmed_ns, zone)),
        ("ended", ended),
        ("subjects", f"{row.subjects}, {len(row.evidence.boxes)} boxes in the confirming sample"),
        ("values", ", ".join(f"{name} {value:g}" for name, value in row.evidence.values.items())),
        ("replay", " ".join(filter(None, (_replay(row), row.replay_path)))),
        ("not covered", f"{row.missing_ns / NS_PER_S:.1f} s: {row.partial_reason}" if row.partial else ""),
        ("snapshot", row.snapshot_path or ""),
    ]
    start = row.sample_ns
    for name, ns in sorted(row.timings.items(), key=lambda item: item[1]):
        facts.append((name, f"{(ns - start) / NS_PER_MS:+.0f} ms from the confirming sample"))
    for push in row.pushes:
        told = f"{push.status}" if push.status is not None else "no answer"
        verdict = "accepted" if push.accepted else push.error
        when = local_time(push.started_ns, zone)
        facts.append((f"push {push.target}", f"{when}, {told}, {push.duration_ms} ms, {verdict}"))
    return facts
