"""Draws lists of cameras, assignments and rules with rich.  Times are UTC: a registry may serve several time zones."""

from __future__ import annotations

from typing import Any, Final
from zoneinfo import ZoneInfo

from rich.table import Table
from rich.text import Text

from nodeagent.contract.ids import NS_PER_MS, CameraId, Frozen
from nodeagent.contract.ownership import TaskPhase
from nodeagent.contract.rule import Rule
from nodeagent.infra.cluster_draw import words
from nodeagent.infra.times import local_time
from registry.commands.showing import read_as
from registry.http.answers_kept import Camera
from registry.http.answers_live import PastPlace, Place

Listed = list[dict[str, Any]]

_UTC: Final = ZoneInfo("UTC")


class RuleLine(Frozen):
    """A rule as it is listed; its version is not known when those of all cameras are."""

    camera_id: CameraId
    version: int | None
    rule: Rule


def draw_cameras(rows: Listed) -> Table:
    """A row for each camera."""
    table = _table("Cameras", len(rows), "camera", "name", "place", "labels", "stream", "rules", "version", "changed")
    for row in rows:
        camera = read_as(Camera, row)
        streams = [camera.spec.model_dump(mode="json")[name] for name in ("record", "analyse")]
        table.add_row(
            Text(camera.camera_id),
            Text(camera.spec.name),
            Text(camera.group),
            Text(words(camera.labels)),
            Text("\n".join(stream["url"] for stream in streams if stream is not None)),
            str(len(camera.spec.rules)),
            str(camera.version),
            Text(f"{at(camera.changed_ns)} by {camera.changed_by}" + ("" if camera.enabled else "; disabled")),
            style="" if camera.enabled else "dim",
        )
    return table


def draw_assignments(rows: Listed) -> Table:
    """A row for each camera: where it is."""
    table = _table("Assignments", len(rows), "camera", "node", "epoch", "since (UTC)", "why")
    for row in rows:
        place = read_as(Place, row)
        owner = place.owner
        owned = place.phase is TaskPhase.OWNED and owner is not None
        last = f", was {owner.node_id}'s" if owner is not None else ""
        table.add_row(
            Text(place.camera_id),
            Text(owner.node_id) if owned and owner is not None else Text(f"waits for a node{last}", style="yellow"),
            str(owner.epoch) if owner is not None else "",
            at(place.since_ms * NS_PER_MS),
            Text(place.reason),
        )
    return table


def draw_past(camera_id: str, rows: Listed) -> Table:
    """A row for each owner that a camera has or had, newest first."""
    table = _table(f"Owners of {camera_id}", len(rows), "node", "epoch", "from (UTC)", "why", "until", "ended by")
    for row in rows:
        past = read_as(PastPlace, row)
        table.add_row(
            Text(past.owner.node_id),
            str(past.owner.epoch),
            at(past.granted_ns),
            Text(past.reason),
            "now" if past.ended_ns is None else at(past.ended_ns),
            Text(past.end_reason),
        )
    return table


def draw_rules(rows: Listed) -> Table:
    """A row for each rule."""
    table = _table("Rules", len(rows), "camera", "rule", "kind", "severity", "zones", "objects", "version")
    for row in rows:
        line = read_as(RuleLine, row)
        rule = line.rule
        table.add_row(
            Text(line.camera_id),
            Text(rule.rule_id),
            rule.kind,
            rule.severity,
            Text(", ".join(place.name for place in rule.places)),
            Text(", ".join(rule.labels) or "all"),
            "" if line.version is None else str(line.version),
        )
    return table


def at(ns: int) -> str:
    """A time; empty: none."""
    return local_time(ns, _UTC) if ns else ""


def _table(what: str, number: int, *titles: str) -> Table:
    table = Table(title=f"{what} ({number})", title_justify="left", title_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    return table
