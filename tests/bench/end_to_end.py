"""The whole main job on RabbitMQ and MariaDB, cameras over RTSP: is all of it accounted for, and how long does it take?

Clips, samples and alarms are counted against the files on disk and against what is known to happen in the video.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import av
import numpy as np

from nodeagent.cli.demo_facts import camera_ledger
from nodeagent.cli.demo_ledger import CameraLedger
from nodeagent.contract.ids import NS_PER_MS, NS_PER_S
from nodeagent.infra.alarm_records import AlarmRow, AlarmState, list_alarms
from nodeagent.infra.database import open_database
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.storage import Storage
from tests.bench.harness import Result, result
from tests.support.reference import reference_alarms
from tests.support.site import FOREVER_NS, TRUTH, TRUTH_AFTER_S, TRUTH_BEFORE_S, Site, entries, place

CAMERAS = 4
#: Seconds of recording; `quick` still sees every event of the video once.
SECONDS, QUICK_SECONDS = 300.0, 95.0
#: More rows than any run makes.
ROWS_MAX = 10_000
#: Steps of an alarm's delay from the confirming sample to its row, by the name of their time stamp.
PARTS = (
    ("closed", "to the clip's end and its close"),
    ("inference_started", "in the queue before inference"),
    ("inference_done", "inference"),
    ("judged", "detections' way, and judging"),
    ("received", "alarm's way, and its row"),
)


def run(quick: bool) -> Iterator[Result]:
    """Record for five minutes (or one and a half), let what is on its way arrive, and count."""
    seconds = QUICK_SECONDS if quick else SECONDS
    with Site(CAMERAS) as site:
        for name in site.cameras:
            site.agent.running(f"capture:{name}")
        time.sleep(seconds)
        settings = site.agent.settings
        engine = open_database(settings.database_url)
        off_ns = site.settle()
        site.agent.stop()
        rows = list_alarms(engine, ROWS_MAX)
        ledger = [camera_ledger(settings, name, off_ns) for name in site.cameras]
        yield from _counted(ledger, seconds)
        yield from _alarms(settings, rows, site.receiver.keys)
        yield from _replays([row for row in rows if row.state is AlarmState.PUSHED])
        yield from _delays(rows)


def _counted(ledger: Sequence[CameraLedger], seconds: float) -> Iterator[Result]:
    made = sum(row.clips_made for row in ledger)
    detail = f"{CAMERAS} RTSP cameras for {seconds:.0f} s on RabbitMQ and MariaDB; clips on disk {made}"
    yield result("clips_made", made, "clips", "> 0", detail)
    yield result("clips_not_announced", made - sum(row.clips_announced for row in ledger), "clips", "== 0", detail)
    yield result("clips_not_judged", made - sum(row.clips_judged for row in ledger), "clips", "== 0", detail)
    expected = sum(row.samples_expected for row in ledger)
    judged = sum(row.samples_judged for row in ledger)
    yield result("samples_expected", expected, "samples", "> 0", "by the sampling rule over the frame times on disk")
    yield result("samples_not_judged", expected - judged, "samples", "== 0", f"judged {judged}")
    gaps = "; ".join(f"{row.camera_id} {row.gap_why}" for row in ledger if row.gap_why)
    yield result("not_recorded_s", round(sum(row.gap_s for row in ledger), 1), "s", "", gaps or "no gaps")


def _alarms(settings: Settings, rows: Sequence[AlarmRow], pushed: Sequence[str]) -> Iterator[Result]:
    keys = {row.dedup_key for row in rows}
    wanted = set(reference_alarms(settings))
    yield result("alarms", len(rows), "alarms", "> 0", "rows in MariaDB")
    yield result("alarms_missing", len(wanted - keys), "alarms", "== 0", "against the clips judged anew in one process")
    yield result("alarms_too_many", len(keys - wanted), "alarms", "== 0", "the same")
    yield result("rows_doubled", len(rows) - len(keys), "rows", "== 0", "rows with a key that another row has")
    lost = {row.dedup_key for row in rows if row.state is AlarmState.PUSHED} - set(pushed)
    yield result("pushes_missing", len(lost), "pushes", "== 0", "PUSHED rows whose key the receiver never saw")
    yield from _against_truth(settings, rows)


def _against_truth(settings: Settings, rows: Sequence[AlarmRow]) -> Iterator[Result]:
    """Alarms against what is seen in the video."""
    storage, seen, missed, false = Storage(settings.pools), 0, 0, 0
    for camera in settings.cameras:
        placed = place(storage.clips(camera.camera_id, 0, FOREVER_NS))
        for rule_id in TRUTH:
            moments = entries(placed, rule_id, TRUTH_AFTER_S)
            got = [r.confirmed_ns for r in rows if (r.camera_id, r.rule_id) == (camera.camera_id, rule_id)]
            near = [[ns for ns in got if _matches(ns, moment)] for moment in moments]
            seen += sum(1 for found in near if len(found) == 1)
            missed += sum(1 for found in near if not found)
            matched = {ns for found in near for ns in found[:1]}
            # One more may stand at the first clip: its entry lies before it.
            false += sum(1 for ns in got if ns not in matched and not _at_edge(ns, placed[0].stored.clip.start_ns))
    yield result("truth_seen", seen, "alarms", "> 0", "entries of a zone in the video with exactly one alarm")
    yield result("truth_missed", missed, "alarms", "== 0", "entries of a zone in the video without an alarm")
    yield result("truth_false", false, "alarms", "== 0", "alarms with no entry in the video")


def _matches(confirmed_ns: int, moment_ns: int) -> bool:
    late_s = (confirmed_ns - moment_ns) / NS_PER_S
    return -TRUTH_BEFORE_S <= late_s <= TRUTH_AFTER_S


def _at_edge(confirmed_ns: int, first_ns: int) -> bool:
    return confirmed_ns - first_ns < TRUTH_AFTER_S * NS_PER_S


def _replays(rows: Sequence[AlarmRow]) -> Iterator[Result]:
    lengths, bad = [], 0
    for row in rows:
        try:
            with av.open(str(row.replay_path)) as replay:
                frames = sum(1 for _ in replay.decode(video=0))
                packets = replay.streams.video[0].frames
        except (av.FFmpegError, OSError):
            bad += 1
            continue
        bad += frames != packets or not frames
        if not row.partial:
            lengths.append((row.replay_length_ns or 0) / NS_PER_S)
    yield result("replays_not_decoding", bad, "replays", "== 0", f"of {len(rows)} pushed, every frame decoded here")
    if lengths:
        yield result("replay_s_least", min(lengths), "s", ">= 30", f"{len(lengths)} replays that cover their window")
        yield result(
            "replay_s_longest", max(lengths), "s", "<= 33", "30 s, one group of pictures (2 s) and 1 s at most"
        )
    partial = sum(row.partial for row in rows)
    yield result("replays_partial", partial, "replays", "", "flagged: their window begins before recording did")


def _delays(rows: Sequence[AlarmRow]) -> Iterator[Result]:
    whole = [_ms(row.sample_ns, row.timings["received"]) for row in rows]
    yield from _percentiles("sample_to_row", whole, "from the violation's sample to the row in MariaDB")
    for number, (key, what) in enumerate(PARTS):
        before = PARTS[number - 1][0] if number else None
        part = [_ms(row.timings[before] if before else row.sample_ns, row.timings[key]) for row in rows]
        yield from _percentiles(f"part_{key}", part, what)


def _ms(from_ns: int, to_ns: int) -> float:
    return (to_ns - from_ns) / NS_PER_MS


def _percentiles(name: str, values_ms: Sequence[float], detail: str) -> Iterator[Result]:
    for percent in (50, 99):
        yield result(f"{name}_p{percent}", round(float(np.percentile(values_ms, percent)), 1), "ms", "", detail)
