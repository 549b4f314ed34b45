"""Makes an alarm's replay and snapshot out of its clips, and puts both in their place.

A file is written beside its place, synced, verified by decoding, and only then renamed: a replay that can be seen
plays.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path

from nodeagent.alarm.cutter import BadClip, Joined, Source, join, stream_format
from nodeagent.alarm.payload import stamp
from nodeagent.alarm.plan import Piece, Window, choose, one_stream, why_partial
from nodeagent.alarm.snapshot import caption, draw
from nodeagent.alarm.steps import Checkpoint
from nodeagent.alarm.store import Cutting
from nodeagent.alarm.verify import Verified, verify
from nodeagent.contract.clip import ClipId
from nodeagent.contract.errors import BadMedia, StorageUnavailable
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.alarm_records import AlarmRow
from nodeagent.infra.files import rename_durably, sync_folder, write_atomically
from nodeagent.infra.storage import StoredClip

log = logging.getLogger(__name__)


def window_of(row: AlarmRow) -> Window:
    """What the alarm's replay should show."""
    return Window(row.replay_from_ns, row.replay_to_ns, row.sample_ns)


def piece_of(stored: StoredClip) -> Piece:
    """A clip as the planner sees it."""
    return Piece(stored.clip, stored.clip.start_ns, stored.end_ns)


class ReplayMaker:
    """Cuts replays into one folder, by day."""

    def __init__(self, folder: Path, worker: str, zone: tzinfo, checkpoint: Checkpoint) -> None:
        """`worker` goes into the names of unfinished files: two workers never write one file."""
        self._folder = folder
        self._worker = worker.replace("/", "-").replace(":", "-")
        self._zone = zone
        self._checkpoint = checkpoint

    def make(self, row: AlarmRow, clips: Sequence[StoredClip], camera_name: str) -> Cutting:
        """Cut, verify and place the replay, then the snapshot.

        Raises:
            StorageUnavailable: the disk cannot take them now.
        """
        window = window_of(row)
        if window.to_ns <= window.from_ns:
            return Cutting()
        try:
            return self._make(row, window, {stored.clip: stored for stored in clips}, camera_name)
        except OSError as exc:
            raise StorageUnavailable(f"evidence folder: {exc.strerror or type(exc).__name__}") from exc

    def _make(self, row: AlarmRow, window: Window, clips: Mapping[ClipId, StoredClip], camera_name: str) -> Cutting:
        place = self._place(row)
        unfinished = place.with_name(f".{place.name}.{self._worker}.part")
        why: list[str] = []
        joined = self._join(list(clips.values()), window, unfinished, why)
        try:
            # kill -9 here: the unfinished file is overwritten by the next try.
            self._checkpoint("replay_written")
            verified = verify(unfinished, row.sample_ns - joined.start_ns) if joined else None
        except BadMedia as exc:
            why.append(str(exc))
            verified = None
        if joined is None or verified is None:
            _clear(place)
            reason, missing_ns = why_partial([], window, why)
            return Cutting(partial_reason=reason, missing_ns=missing_ns)
        if verified.broken or verified.frames < joined.packets:
            why.append(f"{joined.packets - verified.frames} of {joined.packets} frames cannot be decoded")
        with unfinished.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        rename_durably(unfinished, place)
        self._checkpoint("replay_renamed")
        _clear(place)
        reason, missing_ns = why_partial(joined.spans, window, why)
        cutting = Cutting(
            replay_path=str(place),
            replay_sha256=digest,
            replay_start_ns=joined.start_ns,
            replay_length_ns=joined.length_ns,
            partial_reason=reason,
            missing_ns=missing_ns,
        )
        return self._with_snapshot(row, verified, camera_name, cutting, place.with_suffix(".jpg"))

    def _join(self, clips: Sequence[StoredClip], window: Window, target: Path, why: list[str]) -> Joined | None:
        """Join what can be joined; a clip that cannot be read is left out and the plan made again without it."""
        left = {stored.clip: stored for stored in clips}
        broken = 0
        while True:
            chosen = choose(map(piece_of, left.values()), window)
            try:
                known = [replace(p, stream=stream_format(_source(left[p.clip]))) for p in chosen]
                run = one_stream(known, window)
                sources = [_source(left[piece.clip]) for piece in run]
                joined = join(sources, window.from_ns, window.to_ns, target) if sources else None
            except BadClip as exc:
                log.warning("%s: left out of a replay", exc, extra={"event": "clip_unreadable"})
                del left[exc.clip]
                broken += 1
                continue
            except BadMedia as exc:
                why.append(str(exc))
                return None
            if broken:
                why.append(f"{broken} clip{'s' if broken > 1 else ''} cannot be read")
            if len(run) < len(chosen):
                why.append("the stream changed its format")
            return joined

    def _with_snapshot(
        self, row: AlarmRow, verified: Verified, camera_name: str, cutting: Cutting, place: Path
    ) -> Cutting:
        if verified.picture is None:
            return cutting
        when = (stamp(row.sample_ns, self._zone) or "")[:19].replace("T", " ")
        text = caption(row.camera_id, camera_name, f"{row.rule_id} / {row.zone}  {when}")
        try:
            body = draw(verified.picture, row.evidence, text)
        except Exception:
            log.exception("alarm %s: goes without its picture", row.dedup_key, extra={"event": "snapshot_failed"})
            return cutting
        write_atomically(place, body)
        self._checkpoint("snapshot_written")
        return replace(cutting, snapshot_path=str(place), snapshot_sha256=hashlib.sha256(body).hexdigest())

    def _place(self, row: AlarmRow) -> Path:
        """Where the replay belongs: the day of the confirming sample, UTC, and the key, which is 32 hex digits."""
        day = datetime.fromtimestamp(row.confirmed_ns // NS_PER_S, UTC).strftime("%Y-%m-%d")
        folder = self._folder / day
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self._folder)
        return folder / f"{row.dedup_key}.mp4"


def _source(stored: StoredClip) -> Source:
    return Source(stored.clip, stored.clip.start_ns, stored.path)


def _clear(place: Path) -> None:
    """Remove what killed workers left unfinished of this replay.  Only the holder of the row's claim gets here."""
    for left in place.parent.glob(f".{place.name}.*.part"):
        left.unlink(missing_ok=True)
