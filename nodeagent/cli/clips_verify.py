"""`nodeagent clips --verify`: reads what is recorded and what the ledger says, and shows whether they close."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import av
import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nodeagent.cli.clips_account import DayAccount, Found, account, verified_span
from nodeagent.contract.errors import BadMedia
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.clip_folders import StoredClip, hours_on, times_in
from nodeagent.infra.clock import Clock, SystemClock
from nodeagent.infra.gaps import first_gap_start, last_gap_end, read_gaps
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.spans import Span
from nodeagent.infra.storage import Storage, is_pool
from nodeagent.infra.times import local_time
from nodeagent.infra.video import opened

#: A camera whose account ends longer ago than this is told, ns: clips and ledger of one that runs are half a minute
#: behind at most.
BEHIND_NS = 120 * NS_PER_S
#: A hole is looked at again after this, seconds: clip and ledger are two files, and somebody may be between them.
AGAIN_S = 1.0
#: Looks at a hole that ends less than `BEHIND_NS` ago: a clip may be in memory still, while its disk is slow.
LOOKS = 15
_SYSTEM = SystemClock()


class Wanted(NamedTuple):
    """What somebody wants to have verified, UTC ns; no beginning: from the oldest clip on."""

    from_ns: int | None
    to_ns: int


@dataclass(frozen=True, slots=True)
class Verified:
    """One camera.

    Attributes:
        camera_id: its name.
        span: what was looked at; none when there is nothing.
        days: its accounts.
        broken: clips that do not decode, with the reason; empty when that was not asked.
    """

    camera_id: str
    span: Span | None
    days: Sequence[DayAccount]
    broken: Sequence[tuple[StoredClip, str]] = ()

    @property
    def well(self) -> bool:
        """Whether all time is accounted for, and all clips decode."""
        return not self.broken and not any(day.missing for day in self.days)


def verify(
    settings: Settings,
    cameras: Sequence[str],
    wanted: Wanted,
    zone: ZoneInfo,
    *,
    decode: bool,
    clock: Clock = _SYSTEM,
) -> Iterator[Verified]:
    """Verify camera by camera."""
    storage = Storage(settings.pools)
    for camera_id in cameras:
        done = _verify(settings, storage, camera_id, wanted, zone)
        span = done.span
        for look in range(LOOKS):
            if done.well or span is None or (look and not _is_fresh(done, clock.wall_ns())):
                break
            time.sleep(AGAIN_S)
            done = _verify(settings, storage, camera_id, Wanted(*span), zone)
        if decode and done.span is not None:
            broken = _broken(storage.clips(camera_id, *done.span))
            done = Verified(done.camera_id, done.span, done.days, list(broken))
        yield done


def _is_fresh(done: Verified, now_ns: int) -> bool:
    """Whether some hole may be closed yet."""
    return any(now_ns - hole.to_ns < BEHIND_NS for day in done.days for hole in day.missing)


def _verify(settings: Settings, storage: Storage, camera_id: str, wanted: Wanted, zone: ZoneInfo) -> Verified:
    found = _found(settings, storage, camera_id, wanted)
    span = verified_span(found, wanted.from_ns, wanted.to_ns)
    return Verified(camera_id, span, account(found, span, zone) if span is not None else [])


def _found(settings: Settings, storage: Storage, camera_id: str, wanted: Wanted) -> Found:
    """What there is of a camera.  How far it is settled is read first: what comes meanwhile is only more."""
    state_dir, from_ns = settings.node.state_dir, wanted.from_ns or 0
    ends = (storage.newest_end(camera_id), last_gap_end(state_dir, camera_id))
    unfinished = []
    for clip, path in storage.parts(camera_id):
        # Closed meanwhile, it is found among the clips.
        with contextlib.suppress(OSError):
            unfinished.append(Span(clip.start_ns, max(clip.start_ns, path.stat().st_mtime_ns)))
    oldest = _oldest_clips(settings, camera_id)
    begins = [*oldest, *([] if (gap_ns := first_gap_start(state_dir, camera_id)) is None else [gap_ns])]
    return Found(
        recorded=storage.timeline(camera_id, from_ns, wanted.to_ns),
        gaps=[Span(gap.from_ns, gap.to_ns) for gap in read_gaps(state_dir, camera_id, from_ns, wanted.to_ns)],
        unfinished=unfinished,
        began_ns=min(begins, default=None),
        settled_ns=max((end for end in ends if end is not None), default=0),
        # That of the disk that keeps the camera's clips for the shortest time.
        kept_from_ns=max(oldest, default=None),
    )


def _oldest_clips(settings: Settings, camera_id: str) -> list[int]:
    """Start of the oldest clip of each disk that has one of the camera."""
    oldest = []
    for pool in settings.pools:
        for folder in hours_on(pool.path, camera_id, "record"):
            if times := times_in(folder):
                oldest.append(min(start_ns for start_ns, _, _ in times))
                break
    return oldest


def _broken(clips: Sequence[StoredClip]) -> Iterator[tuple[StoredClip, str]]:
    for stored in clips:
        try:
            why = decode_fault(stored.path)
        except FileNotFoundError:
            # Retention took it meanwhile.
            continue
        if why:
            yield stored, why


def decode_fault(path: Path) -> str:
    """Why a clip does not decode from its first frame to its last; empty when it does.

    Raises:
        FileNotFoundError: it is gone.
    """
    path.stat()
    frames = 0
    try:
        with opened(path) as (container, stream):
            stream.codec_context.options = {"err_detect": "explode"}
            for packet in container.demux(stream):
                frames += len(packet.decode())
    except (BadMedia, av.FFmpegError, OSError) as exc:
        return str(exc)
    return "" if frames else "no picture in it"


def show(done: Sequence[Verified], settings: Settings, zone: ZoneInfo, now_ns: int, *, as_json: bool) -> None:
    """Print the accounts, and what is wrong with its place."""
    if as_json:
        for one in done:
            click.echo(json.dumps(_document(one)))
        return
    table = Table(title=f"recorded + gaps = wall time, in seconds; days of {zone.key}", title_justify="left")
    for name in ("camera", "day"):
        table.add_column(name)
    for name in ("wall", "recorded", "gaps", "in both", "aged out", "unfinished", "missing"):
        table.add_column(name, justify="right")
    for one in done:
        for day in one.days:
            table.add_row(one.camera_id, day.day, *(f"{ns / NS_PER_S:.1f}" for ns in _durations(day)))
    console = Console()
    console.print(table)
    for line in _notes(done, settings, zone, now_ns):
        console.print(Text(line))


def _durations(day: DayAccount) -> tuple[int, ...]:
    lost = (sum(span.duration_ns for span in spans) for spans in (day.aged, day.unfinished, day.missing))
    return day.span.duration_ns, day.recorded_ns, day.gaps_ns, day.both_ns, *lost


def _notes(done: Sequence[Verified], settings: Settings, zone: ZoneInfo, now_ns: int) -> Iterator[str]:
    for one in done:
        yield from _notes_on(one, zone)
    late = [one.camera_id for one in done if one.span is not None and now_ns - one.span.to_ns > BEHIND_NS]
    if late:
        yield f"not up to now, as nothing records there, or a clip is open for long: {', '.join(late)}"
    for pool in settings.pools:
        if not is_pool(pool.path):
            yield f"disk {pool.path} has no mark: what lies on it is not counted"


def _notes_on(one: Verified, zone: ZoneInfo) -> Iterator[str]:
    if one.span is None:
        yield f"{one.camera_id}: of that time there is no clip, and nothing in the ledger"
        return
    begin, end = (local_time(ns, zone) for ns in one.span)
    yield f"{one.camera_id}: verified from {begin} to {end}"
    for hole in (hole for day in one.days for hole in day.missing):
        begin, end = (local_time(ns, zone) for ns in hole)
        seconds = hole.duration_ns / NS_PER_S
        yield f"  MISSING {seconds:.1f} s from {begin} to {end} (UTC ns {hole.from_ns} to {hole.to_ns})"
    for stored, why in one.broken:
        yield f"  BROKEN {stored.path}: {why}"


def _document(one: Verified) -> dict[str, object]:
    return {
        "camera_id": one.camera_id,
        "from_ns": one.span.from_ns if one.span else None,
        "to_ns": one.span.to_ns if one.span else None,
        "well": one.well,
        "days": [_day(day) for day in one.days],
        "broken": [{"path": str(stored.path), "reason": why} for stored, why in one.broken],
    }


def _day(day: DayAccount) -> dict[str, object]:
    made = asdict(day)
    for name in ("aged", "unfinished", "missing"):
        made[name] = [{"from_ns": span.from_ns, "to_ns": span.to_ns} for span in getattr(day, name)]
    made["span"] = {"from_ns": day.span.from_ns, "to_ns": day.span.to_ns}
    return {**made, "wall_ns": day.span.duration_ns, "difference_ns": day.difference_ns}
