"""What a run of the demo found out: read while it runs (`Watch`), and added up at its end (`find_out`)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from zoneinfo import ZoneInfo

import av
from sqlalchemy import Engine

from nodeagent.alarm.receiver import PushReceiver, ReceivedPush
from nodeagent.capture.journal import Journal
from nodeagent.capture.sampler import Sampler
from nodeagent.cli.demo_config import DemoPlan
from nodeagent.cli.demo_ledger import CameraLedger, gap_summary
from nodeagent.cli.demo_report import DemoOutcome, ShownAlarm, pretty_push
from nodeagent.contract.clip import StreamName
from nodeagent.contract.errors import AgentError, BadMedia
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.report import NodeReport
from nodeagent.contract.states import MEANING
from nodeagent.infra.alarm_records import AlarmRow, AlarmState, list_alarms
from nodeagent.infra.board import Board
from nodeagent.infra.database import open_database
from nodeagent.infra.gaps import read_gaps
from nodeagent.infra.incarnation import live_board_path
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.storage import Storage, StoredClip
from nodeagent.infra.times import local_time
from nodeagent.infra.video import ns_of
from nodeagent.judge.store import read_account

#: Alarms that are looked at; a demo makes a handful.
ALARMS_MAX = 500
#: Seconds between two looks at the database.
DATABASE_S = 1.0
#: A problem that is over sooner is part of starting up, ns.
PROBLEM_NS = 2 * NS_PER_S
#: End of time for "everything until now".
FOREVER_NS = 2**62


class Watch:
    """Follows a running demo: board, alarms, and what there is to tell."""

    def __init__(self, plan: DemoPlan, receiver: PushReceiver) -> None:
        self._plan = plan
        self.receiver = receiver
        self.alarms: list[AlarmRow] = []
        self.events: list[str] = []
        #: Those of the events that stood in the way of an alarm.
        self.problems: list[str] = []
        self.first_push_s: float | None = None
        self._engine: Engine | None = None
        self._looked_s = -DATABASE_S
        self._told: set[tuple[str, str]] = set()
        self._started_ns = time.time_ns()

    def say(self, line: str) -> None:
        """Add a line to what happened."""
        self.events.append(line)

    def trouble(self, line: str) -> None:
        """Add a line to what happened and to what stood in the way."""
        self.say(line)
        self.problems.append(line)

    def say_all(self, lines: Iterable[str]) -> None:
        """Add several lines."""
        self.events.extend(lines)

    def look(self, past_s: float) -> NodeReport | None:
        """Read board and database; none while there is no board."""
        self._follow_pushes()
        try:
            path = live_board_path(self._plan.state_dir)
            if path is None:
                return None
            report = Board.open(path).report(time.monotonic(), "", "")
            self._follow_problems(report)
            if past_s - self._looked_s >= DATABASE_S:
                self._looked_s = past_s
                self.alarms = self._read_alarms()
        except AgentError:
            # Not up yet, or just gone: the next look will tell.
            return None
        return report

    def _follow_pushes(self) -> None:
        if self.first_push_s is None and self.receiver.pushes:
            self.first_push_s = (self.receiver.pushes[0].received_ns - self._started_ns) / NS_PER_S
            self.say(f"first push received {self.first_push_s:.0f} s after the start")

    def _follow_problems(self, report: NodeReport) -> None:
        for row in report.rows:
            seen = (row.name, row.state.value)
            lasted_ns = time.time_ns() - row.state_since_ns
            if MEANING[row.state].problem and lasted_ns > PROBLEM_NS and seen not in self._told:
                self._told.add(seen)
                self.trouble(f"{row.name}: {row.state.value} {row.detail}")

    def _read_alarms(self) -> list[AlarmRow]:
        database = self._plan.state_dir / "nodeagent.db"
        if not database.exists():
            return []
        if self._engine is None:
            self._engine = open_database(f"sqlite:///{database}")
        return list_alarms(self._engine, ALARMS_MAX)


def find_out(plan: DemoPlan, watch: Watch, kill: str) -> DemoOutcome:
    """Add up a finished run.

    Raises:
        AgentError: its configuration, database or state cannot be read.
    """
    settings = load_settings(plan.config_path)
    zone = ZoneInfo(plan.time_zone)
    alarms = list_alarms(open_database(settings.database_url), ALARMS_MAX)
    pushes = {push.key: push for push in watch.receiver.pushes if push.genuine}
    return DemoOutcome(
        folder=plan.folder,
        time_zone=plan.time_zone,
        seconds=plan.seconds,
        alarm=_shown(alarms, pushes, zone),
        first_push_s=watch.first_push_s,
        alarms=[_alarm_line(row, zone) for row in reversed(alarms)],
        ledger=[camera_ledger(settings, camera.camera_id) for camera in settings.cameras],
        kill=kill,
        own_source=plan.source is not None or plan.model is not None,
        problems=watch.problems,
    )


def _shown(alarms: list[AlarmRow], pushes: dict[str, ReceivedPush], zone: ZoneInfo) -> ShownAlarm | None:
    """The alarm to show: pushed, its replay verified; one that covers its window before a partial one."""
    pushed = [
        row
        for row in alarms
        if row.state is AlarmState.PUSHED and row.dedup_key in pushes and row.replay_path and row.snapshot_path
    ]
    best = min(pushed, key=lambda row: (row.partial, row.confirmed_ns), default=None)
    if best is None:
        return None
    push = pushes[best.dedup_key]
    return ShownAlarm(
        camera_id=best.camera_id,
        rule_id=best.rule_id,
        rule_kind=best.rule_kind,
        zone=best.zone,
        severity=best.severity,
        confirmed=local_time(best.confirmed_ns, zone),
        confirmed_ns=best.confirmed_ns,
        replay_path=Path(best.replay_path or ""),
        replay_s=(best.replay_length_ns or 0) / NS_PER_S,
        partial=best.partial_reason if best.partial else "",
        snapshot_path=Path(best.snapshot_path or ""),
        timings=best.timings,
        push=pretty_push(push.headers, push.body),
    )


def _note(row: AlarmRow) -> str:
    """What the reader must know of an alarm beside its state."""
    if row.state in (AlarmState.RECEIVED, AlarmState.WAITING):
        return "the run ended before the video after it was recorded"
    return row.partial_reason if row.partial else row.state_reason


def _alarm_line(row: AlarmRow, zone: ZoneInfo) -> dict[str, str]:
    length = f"{row.replay_length_ns / NS_PER_S:.1f}" if row.replay_length_ns else ""
    return {
        "confirmed": local_time(row.confirmed_ns, zone),
        "camera_id": row.camera_id,
        "rule_id": row.rule_id,
        "zone": row.zone,
        "state": row.state.value,
        "replay_s": length,
        "note": _note(row),
    }


def camera_ledger(settings: Settings, camera_id: str, until_ns: int = FOREVER_NS) -> CameraLedger:
    """One camera's account, of a node whose agent has stopped; gaps count up to `until_ns`.

    Of a camera with a sub-stream it is that stream's clips that are announced and judged.

    Raises:
        AgentError: a file cannot be read.
    """
    state_dir = settings.node.state_dir
    camera = next(camera for camera in settings.cameras if camera.camera_id == camera_id)
    analysed: StreamName = "record" if camera.analyse is None else "analyse"
    clips = Storage(settings.pools).clips(camera_id, 0, FOREVER_NS, stream=analysed)
    journal = Journal(state_dir / "journal" / f"{camera_id}.jsonl")
    waiting = {closed.key for closed in journal.all_unconfirmed()}
    journal.close()
    judged = read_account(state_dir, camera_id)
    gaps = read_gaps(state_dir, camera_id, 0, until_ns)
    gap_s, gap_why = gap_summary(
        [(gap.reason.value, (min(gap.to_ns, until_ns) - gap.from_ns) / NS_PER_S) for gap in gaps]
    )
    return CameraLedger(
        camera_id=camera_id,
        clips_made=len(clips),
        clips_announced=sum((stored.clip.epoch, stored.clip.start_ns) not in waiting for stored in clips),
        clips_judged=judged.clips,
        clips_twice=judged.duplicates,
        samples_expected=samples_in(clips, camera.sample_fps),
        samples_judged=judged.samples,
        gap_s=gap_s,
        gap_why=gap_why,
    )


def samples_in(clips: Iterable[StoredClip], sample_fps: float) -> int:
    """Samples that clips hold, by the sampling rule over the frame times in their files; nothing is decoded.

    Raises:
        BadMedia: a clip cannot be read.
    """
    sampler = Sampler(sample_fps)
    return sum(sampler.take(time_ns) for stored in clips for time_ns in frame_times(stored))


def frame_times(stored: StoredClip) -> list[int]:
    """Capture times of a clip's frames, UTC ns, growing.

    Raises:
        BadMedia: the clip cannot be read.
    """
    try:
        with av.open(str(stored.path)) as container:
            packets = [p for p in container.demux(video=0) if p.pts is not None]
    except av.FFmpegError as exc:
        raise BadMedia(f"{stored.path.name}: {exc}") from exc
    base = packets[0].pts if packets else None
    return sorted(
        stored.clip.start_ns + ns_of(p.pts - base, p.time_base)
        for p in packets
        if p.pts is not None and base is not None
    )
