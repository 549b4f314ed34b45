"""Shows what came of a backtest: a table for people, JSON lines for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from zoneinfo import ZoneInfo

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nodeagent.backtest.run import Judged
from nodeagent.backtest.truth import Score
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.times import local_time, span


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it.

    Attributes:
        judged: by camera.
        scores: by rule; None: nobody said what happened.
        inferred, cached: clips that the model looked at, and those that it had looked at before.
        took_s: seconds of it all.
    """

    judged: Sequence[Judged]
    scores: Mapping[str, Score] | None
    inferred: int
    cached: int
    took_s: float

    @property
    def video_s(self) -> float:
        """Seconds of video."""
        return sum(one.video_ns for one in self.judged) / NS_PER_S

    @property
    def speed(self) -> float:
        """Seconds of video in a second."""
        return self.video_s / max(self.took_s, 1e-6)


def write_json(report: Report) -> None:
    """One object a line: `what` is `episode`, `unknown`, `score` or, at the end, `summary`."""
    for one in report.judged:
        for episode in one.episodes:
            _line("episode", asdict(episode))
        for video, reason in one.unknown:
            facts = {"camera_id": one.camera_id, "start_ns": video.clip.start_ns, "duration_ns": video.duration_ns}
            _line("unknown", {**facts, "path": str(video.path), "reason": reason})
    for rule_id, score in (report.scores or {}).items():
        _line("score", {"rule_id": rule_id, **_score(score)})
    summary = {"video_s": report.video_s, "took_s": report.took_s, "speed": report.speed}
    _line("summary", {**summary, "inferred": report.inferred, "cached": report.cached})


def draw(report: Report, zone: ZoneInfo) -> None:
    """The episodes, what nothing is known of, how well it tells of what happened, and how long it took."""
    console = Console()
    _draw_episodes(console, report, zone)
    for one in report.judged:
        for video, reason in one.unknown:
            when = local_time(video.clip.start_ns, zone)
            console.print(Text(f"unknown: {one.camera_id} {when}, {video.duration_ns / NS_PER_S:.1f} s: {reason}"))
    for rule_id, score in (report.scores or {}).items():
        _draw_score(console, rule_id, score, zone)
    clips = f"{report.inferred} clips inferred, {report.cached} from the cache"
    console.print(
        Text(f"{span(report.video_s)} of video in {report.took_s:.1f} s, {report.speed:.1f} x real time; {clips}")
    )


def _draw_episodes(console: Console, report: Report, zone: ZoneInfo) -> None:
    episodes = [episode for one in report.judged for episode in one.episodes]
    table = Table(title=f"{len(episodes)} episodes, times {zone.key}", title_justify="left")
    for name in ("camera", "rule", "zone", "kind", "start", "confirmed", "end"):
        table.add_column(name, overflow="fold")
    table.add_column("subjects", justify="right")
    table.add_column("values", overflow="fold")
    for episode in episodes:
        end = "open" if episode.ended_ns is None else _clock(episode.ended_ns, zone)
        values = ", ".join(f"{name} {value:.1f}" for name, value in sorted(episode.values.items()))
        table.add_row(
            episode.camera_id,
            episode.rule_id + (" (shadow)" if episode.shadow else ""),
            Text(episode.zone),
            episode.kind,
            local_time(episode.started_ns, zone),
            _clock(episode.confirmed_ns, zone),
            end,
            str(episode.subjects),
            values,
        )
    console.print(table)


def _clock(ns: int, zone: ZoneInfo) -> str:
    """Time of day to the tenth of a second."""
    return f"{local_time(ns, zone)[11:]}.{ns % NS_PER_S * 10 // NS_PER_S}"


def _draw_score(console: Console, rule_id: str, score: Score, zone: ZoneInfo) -> None:
    delay = f"delay p50 {_seconds(score.delay_p50_s)}, max {_seconds(score.delay_max_s)}"
    console.print(Text(f"{rule_id}: precision {_share(score.precision)}, recall {_share(score.recall)}, {delay}"))
    for event in score.missed:
        where = f"{event.zone or 'any zone'}, {local_time(event.start_ns, zone)} (line {event.line})"
        console.print(Text(f"  missed: {where}"))
    for episode in score.false:
        console.print(Text(f"  false: {episode.camera_id}, {episode.zone}, {local_time(episode.started_ns, zone)}"))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _score(score: Score) -> dict[str, object]:
    return {
        "precision": score.precision,
        "recall": score.recall,
        "delay_p50_s": score.delay_p50_s,
        "delay_max_s": score.delay_max_s,
        "pairs": [{"line": event.line, "key": episode.key} for event, episode in score.pairs],
        "missed": [asdict(event) for event in score.missed],
        "false": [episode.key for episode in score.false],
    }


def _line(what: str, facts: Mapping[str, object]) -> None:
    click.echo(json.dumps({"what": what, **facts}))
