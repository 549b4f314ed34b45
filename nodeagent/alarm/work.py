"""The two slow steps of an alarm, cut and push, as they run in a thread of a bounded pool.

Each claims the row, looks at it again, does its work, keeps the result, and gives the row back.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from enum import Enum, auto
from pathlib import Path

from nodeagent.alarm.payload import body_of, payload
from nodeagent.alarm.push import send
from nodeagent.alarm.replay import ReplayMaker
from nodeagent.alarm.states import Event, sources
from nodeagent.alarm.steps import Checkpoint
from nodeagent.alarm.store import MAX_STARTS, AlarmStore
from nodeagent.alarm.targets import Targets
from nodeagent.contract.ids import NS_PER_S
from nodeagent.infra.alarm_records import AlarmRow, AlarmState, PushRow
from nodeagent.infra.clock import Clock
from nodeagent.infra.settings.sections import PushSettings
from nodeagent.infra.storage import StoredClip

log = logging.getLogger(__name__)

#: Seconds that a claim lasts beyond the work's own time limits: a cut takes one or two, a slow disk ten times that.
CLAIM_S = 60.0


class End(Enum):
    """How a step ended."""

    #: The row has moved on: look at it again.
    MOVED = auto()
    #: Another worker holds the row.
    TAKEN = auto()
    #: The row was given up.
    QUARANTINED = auto()
    #: Some target did not accept, or was left out because it keeps everybody waiting.
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Done:
    """A step's end and the row after it.

    Attributes:
        pushes: the requests that were made, for the counters and the state on the board.
        made_partial: a replay was made now and does not cover its window.
    """

    end: End
    row: AlarmRow | None = None
    pushes: tuple[PushRow, ...] = ()
    made_partial: bool = False


class AlarmWork:
    """What the threads of the pools run.  All methods raise Unavailable, StorageUnavailable and RowLost."""

    def __init__(
        self,
        store: AlarmStore,
        maker: ReplayMaker,
        targets: Sequence[PushSettings],
        site: tuple[str, tzinfo],
        clock: Clock,
        checkpoint: Checkpoint,
    ) -> None:
        """`site`: its name and time zone."""
        self._store = store
        self._maker = maker
        #: Shared by all threads.
        self.targets = Targets(targets, clock)
        self._site, self._zone = site
        self._clock = clock
        self._checkpoint = checkpoint

    @property
    def limit_s(self) -> float:
        """Seconds after which no claim of a step that began holds any more."""
        return CLAIM_S + self.targets.timeouts_s

    def cut(self, key: str, clips: Sequence[StoredClip], camera_name: str, owed: bool) -> Done:
        """Make replay and snapshot of these clips and keep what the push will say.

        `owed`: an earlier try of this process ended in an orderly way but could not say so.
        """
        taken = self._take(key, Event.CUT, CLAIM_S, owed)
        if isinstance(taken, Done):
            return taken
        self._checkpoint("cut_claimed")
        cutting = self._maker.make(taken, clips, camera_name)
        body = body_of(payload(taken, cutting, self._site, self._zone, camera_name))
        won = self._store.replay_ready(taken, cutting, body, self._clock.wall_ns())
        self._checkpoint("replay_ready")
        return Done(End.MOVED, self._store.load(key), made_partial=won and bool(cutting.partial_reason))

    def push(self, key: str, owed: bool) -> Done:
        """Ask every target that has not accepted yet and may be asked now, in turn."""
        if not owed:
            seen = self._store.load(key)
            owing = self.targets.owed(seen)
            if owing and not any(self.targets.may_ask(target, key) for target in owing):
                return Done(End.REFUSED, seen)
        taken = self._take(key, Event.ACCEPTED, self.limit_s, owed)
        if isinstance(taken, Done):
            return taken
        self._checkpoint("push_claimed")
        owing = self.targets.owed(taken)
        pushes = tuple(self._ask(taken, target) for target in owing if self.targets.reserve(target, key))
        complete = len(pushes) == len(owing) and all(push.accepted for push in pushes)
        if complete:
            event = Event.ACCEPTED if self.targets else Event.NOBODY
            self._store.pushed(taken, event, self._clock.wall_ns())
            self._checkpoint("pushed")
        else:
            self._store.release(key, orderly=True)
        return Done(End.MOVED if complete else End.REFUSED, self._store.load(key), pushes)

    def _ask(self, row: AlarmRow, target: PushSettings) -> PushRow:
        started_ns = self._clock.wall_ns()
        try:
            push = send(target, row.dedup_key, (row.push_body or "{}").encode(), self._clock)
        except Exception as exc:
            # What nobody foresaw with one target is a failed attempt of that one: the others are asked, and the alarm
            # is tried again.  Only kind and place are told: a library's text may hold the URL.
            frame = traceback.extract_tb(exc.__traceback__)[-1]
            why = f"{type(exc).__name__} ({Path(frame.filename).name}:{frame.lineno})"
            log.error("push to %s: %s", target.name, why, extra={"event": "push_unforeseen"})  # noqa: TRY400
            push = PushRow(target.name, started_ns, 0, None, False, why)
        self.targets.note(push, row.dedup_key)
        # kill -9 here: the target has it and we do not know.  It is asked again with the same key and bytes.
        self._checkpoint("push_sent")
        self._store.attempt(row.dedup_key, push)
        self._checkpoint("attempt_kept")
        return push

    def _take(self, key: str, event: Event, limit_s: float, owed: bool) -> AlarmRow | Done:
        """The row, claimed and in a state that allows `event`; or why not."""
        if owed:
            self._store.release(key, orderly=True)
        now_ns = self._clock.wall_ns()
        if not self._store.claim(key, now_ns, now_ns + round(limit_s * NS_PER_S)):
            return Done(End.TAKEN, self._store.load(key))
        row = self._store.load(key)
        if row.state not in sources(event):
            self._store.release(key, orderly=True)
            return Done(End.QUARANTINED if row.state is AlarmState.QUARANTINED else End.MOVED, row)
        if row.starts > MAX_STARTS:
            reason = f"work in state {row.state} was started {MAX_STARTS} times and never ended"
            self._store.quarantine(row, reason, now_ns)
            told = {"event": "alarm_quarantined", "alarm": row.id}
            log.error("alarm %s: quarantined: %s", row.dedup_key, reason, extra=told)
            return Done(End.QUARANTINED, self._store.load(key))
        return row
