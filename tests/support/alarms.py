"""Alarms for tests: messages, a camera's clips in a pool, a bus in memory, and a desk with its surroundings."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import av

from nodeagent.contract.alarm import AlarmMessage, Evidence, EvidenceBox, dedup_key
from nodeagent.contract.clip import ClipId, clip_file_name
from nodeagent.contract.codec import Message, encode_alarm
from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.report import Kind
from nodeagent.infra.alarm_records import AlarmRow, AlarmState
from nodeagent.infra.board import Board
from nodeagent.infra.bus.port import Delivery
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.settings.sections import (
    AlarmSettings,
    NodeSettings,
    PoolSettings,
    PushSettings,
    Settings,
    SiteSettings,
)
from nodeagent.infra.stop import Stop
from nodeagent.infra.storage import Storage, init_pool
from nodeagent.infra.worker import WorkerContext
from tests.support.media import make_video

#: A time on the grid of five-second clips, some minutes into 2023: long past, so that no test waits for it.
T0 = 1_700_000_000 * NS_PER_S


def message(**changes: Any) -> AlarmMessage:
    """A confirmed intrusion at T0 + 15 s with a window of 20 s around it; `changes` replace fields."""
    confirmed = changes.pop("confirmed_ns", T0 + 15 * NS_PER_S)
    started = changes.pop("episode_started_ns", confirmed - NS_PER_S)
    fields: dict[str, Any] = {
        "stage": "started",
        "node_id": "node-1",
        "camera_id": "gate-1",
        "epoch": 1,
        "rule_id": "yard",
        "rule_kind": "intrusion",
        "zone": "北门",
        "severity": "warning",
        "cooldown_s": 30.0,
        "replay_from_ns": confirmed - 10 * NS_PER_S,
        "replay_to_ns": confirmed + 10 * NS_PER_S,
        "evidence": Evidence(
            sample_ns=confirmed,
            boxes=(EvidenceBox(x1=0.2, y1=0.3, x2=0.4, y2=0.9, score=0.9, label="person", track_id=7),),
            polygon=((0.1, 0.1), (0.9, 0.1), (0.9, 0.95)),
            subjects=1,
        ),
        "timings": {"closed": confirmed + NS_PER_S, "judged": confirmed + 2 * NS_PER_S},
    } | changes
    key = dedup_key(fields["camera_id"], fields["rule_id"], fields["zone"], started, fields.get("shadow", False))
    return AlarmMessage(
        dedup_key=fields.pop("dedup_key", key), confirmed_ns=confirmed, episode_started_ns=started, **fields
    )


def alarm_row(**changes: object) -> AlarmRow:
    """An alarm whose replay is ready, as the database has it; `changes` replace fields."""
    sent = message()
    fields = {name: None for name in AlarmRow.__dataclass_fields__}
    fields |= {
        "state": AlarmState.REPLAY_READY, "dedup_key": sent.dedup_key, "kind": "violation", "camera_id": "gate-1",
        "rule_id": "yard", "rule_kind": "intrusion", "zone": "北门", "node_id": "node-1", "severity": "warning",
        "shadow": False, "untold": "", "summary": "",
        "started_ns": T0, "confirmed_ns": T0 + NS_PER_S, "sample_ns": T0 + NS_PER_S, "subjects": 1,
        "evidence": sent.evidence, "pushes": (),
        "timings": {"judged": T0 + 2 * NS_PER_S}, "replay_from_ns": T0, "replay_to_ns": T0 + 30 * NS_PER_S,
    }  # fmt: skip
    return AlarmRow(**(fields | changes))  # type: ignore[arg-type]


def add_clip(
    storage: Storage,
    folder: Path,
    start_ns: int,
    seconds: float = 5.0,
    *,
    camera_id: str = "gate-1",
    epoch: int = 1,
    **video: Any,
) -> Path:
    """Put a finished clip into the pool, as a capture would: fragmented MP4, ticks of 1/90000 s from 0."""
    raw = make_video(folder / f"raw-{camera_id}-{start_ns}.mp4", seconds=seconds, **video)
    clip = ClipId(camera_id=camera_id, epoch=epoch, start_ns=start_ns)
    place = storage.folder_for(camera_id, start_ns) / clip_file_name(clip, round(seconds * NS_PER_S))
    options = {"movflags": "empty_moov+default_base_moof", "frag_duration": "500000"}
    with av.open(str(raw)) as source, av.open(str(place), "w", format="mp4", options=options) as out:
        target = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = target
                out.mux_one(packet)
    raw.unlink()
    return place


def add_clips(storage: Storage, folder: Path, count: int = 8, start_ns: int = T0, **options: Any) -> list[Path]:
    """Clips of five seconds, one after the other, with frames that count on."""
    fps = options.get("fps", 10)
    return [
        add_clip(storage, folder, start_ns + i * 5 * NS_PER_S, first_number=i * 5 * fps, **options)
        for i in range(count)
    ]


class MemoryBus:
    """The part of the bus that a desk uses, for tests of the desk alone.

    Attributes:
        delays: whether `later` waits as told; else it gives back at once.
    """

    def __init__(self) -> None:
        self._queue: deque[Delivery] = deque()
        self._tags = itertools.count(1)
        self._lock = threading.Lock()
        self.held: dict[object, Delivery] = {}
        self.acked: list[Delivery] = []
        self.delayed: list[tuple[Delivery, float]] = []
        self.put_aside: list[tuple[Delivery, str]] = []
        self.connected = True
        self.refusing = False
        self.delays = False
        self._waiting: list[tuple[float, Delivery]] = []

    def put(self, body: AlarmMessage | Message, attempt: int = 1) -> None:
        """Publish."""
        sent = encode_alarm(body) if isinstance(body, AlarmMessage) else body
        self._queue.append(Delivery("alarms", "gate-1", sent, attempt, tag=next(self._tags)))

    @property
    def empty(self) -> bool:
        return not self.held and not self._queue and not self._waiting

    def redeliver(self) -> None:
        """As when the consumer died: what it held comes again."""
        for delivery in list(self.held.values()):
            self.held.pop(delivery.tag)
            self.put(delivery.message, delivery.attempt + 1)

    def lose(self) -> None:
        """As when the broker was rebuilt: nothing that was published is there any more."""
        self._queue.clear()
        self.held.clear()

    def get(self, _timeout_s: float) -> Delivery | None:
        due = [item for item in self._waiting if item[0] <= time.monotonic()]
        for item in due:
            self._waiting.remove(item)
            self.put(item[1].message, item[1].attempt + 1)
        if not self._queue:
            return None
        delivery = self._queue.popleft()
        self.held[delivery.tag] = delivery
        return delivery

    def ack(self, delivery: Delivery) -> None:
        if self.held.pop(delivery.tag, None):
            self.acked.append(delivery)

    def later(self, delivery: Delivery, delay_s: float) -> None:
        self._confirmed()
        if self.held.pop(delivery.tag, None):
            self.delayed.append((delivery, delay_s))
            if self.delays:
                self._waiting.append((time.monotonic() + delay_s, delivery))
                return
            self.put(delivery.message, delivery.attempt + 1)

    def dead(self, delivery: Delivery, reason: str) -> None:
        self._confirmed()
        if self.held.pop(delivery.tag, None):
            self.put_aside.append((delivery, reason))

    def _confirmed(self) -> None:
        if self.refusing:
            raise Unavailable("bus: not confirmed")


def worker_context(folder: Path, push: tuple[PushSettings, ...] = (), **alarm: Any) -> WorkerContext:
    """Surroundings of an alarm worker whose everything lies in `folder`: SQLite, a marked pool, a board of its own."""
    (folder / "pool").mkdir(parents=True, exist_ok=True)
    init_pool(folder / "pool")
    settings = Settings(
        site=SiteSettings(name="works", time_zone="Asia/Shanghai"),
        node=NodeSettings(node_id="node-1", state_dir=folder),
        pool=(PoolSettings(path=folder / "pool", reserve_gb=0),),
        alarm=AlarmSettings(**{"replay_patience_s": 1.0, **alarm}),
        push=push,
    )
    board = Board.create(folder / "board", "node-1", os.getpid(), T0, cells=4)
    return WorkerContext("alarm:0", settings, board.claim("alarm:0", Kind.ALARM), Stop(), SystemClock(), folder)
