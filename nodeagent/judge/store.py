"""Where a camera's judge is kept: Redis, so that another node can go on with it, and this node's disk, so that a lost
Redis costs nothing.

Both copies hold the same bytes (`snapshot`).  Redis takes a snapshot only from the judge that knows the one before:
there is one line of them, whoever writes it, so a judge that lost its camera cannot put the clock back, and of two that
both believe to have it one goes on from what the other one judged.  A Redis that lost its newest is behind what a judge
knows, and is brought up to date.  The disk copy is replaced
by rename but not synced: against kill -9 of a process the page cache is as good as the disk, a sync per clip and camera
would cost more than the judging, and after a power cut a torn copy is found by its checksum and Redis' own file (or an
alarm's merge by time) takes over.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

import redis

from nodeagent.contract.errors import DecodeError, Unavailable
from nodeagent.infra.clock import Clock
from nodeagent.infra.redis import translated
from nodeagent.judge.camera import CameraJudge
from nodeagent.judge.ledger import Counters
from nodeagent.judge.snapshot import counters_of, order_of, pack

log = logging.getLogger(__name__)

#: Seconds after a failure in which Redis is not tried again: each try may take a connection's time-out.
REDIS_PAUSE_S: Final = 2.0
#: Digits of the numbers that the script compares as text: Lua's numbers lose the last digits of nanoseconds.
_DIGITS: Final = 20

#: KEYS: the hash.  ARGV: the newest order that the writer knows, then field and value pairs, `order` and `writer`
#: first.  Returns 1 when stored, 0 when there is one that the writer does not know.  What it wrote itself is known: the
#: client asks again when the connection broke before the answer.  Two judges make the same snapshot of the same clip,
#: so only the writer's name tells whose it is.
_SAVE: Final = """
local there = redis.call('HMGET', KEYS[1], 'order', 'writer')
local is_this = there[1] == ARGV[3] and there[2] == ARGV[5]
if there[1] and there[1] > ARGV[1] and not is_this then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
"""


class Saved(Enum):
    """How a save went."""

    #: In Redis and on disk.
    BOTH = "both"
    #: On disk; Redis is away.
    DISK = "disk"
    #: Redis has a newer one; load that.
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Account:
    """What the judge's guarded state says of a camera."""

    clips: int = 0
    samples: int = 0
    duplicates: int = 0
    gaps: int = 0
    late: int = 0
    fenced: int = 0
    unknown: int = 0
    alarms: int = 0


def redis_key(camera_id: str) -> str:
    """Redis hash with a camera's snapshot (`state`) and its counters, one field each."""
    return f"judge_state:{camera_id}"


def state_path(state_dir: Path, camera_id: str) -> Path:
    """The disk copy."""
    return state_dir / "judge" / f"{camera_id}.state"


def read_account(state_dir: Path, camera_id: str) -> Account:
    """Counters from the disk copy; zeros when there is none.

    Raises:
        DecodeError: the copy is damaged or of another version.
    """
    try:
        body = state_path(state_dir, camera_id).read_bytes()
    except FileNotFoundError:
        return Account()
    return account_of(counters_of(body))


def account_of(counters: Counters) -> Account:
    """The counters under the names that reports use."""
    return Account(
        clips=counters.clips_judged,
        samples=counters.samples_judged,
        duplicates=counters.duplicates,
        gaps=counters.gaps,
        late=counters.late,
        fenced=counters.fenced,
        unknown=counters.unknown,
        alarms=counters.alarms,
    )


class JudgeStore:
    """Both copies."""

    def __init__(self, client: redis.Redis, state_dir: Path, clock: Clock) -> None:
        self._client: Any = client
        self._script: Any = client.register_script(_SAVE)
        self._state_dir = state_dir
        self._clock = clock
        self._pause_until_s = 0.0
        self._saved: dict[str, int] = {}
        #: By camera, the order of the newest snapshot in Redis that was read or written here.
        self._seen: dict[str, str] = {}
        #: By camera, the order of a snapshot of which Redis did not say whether it has it.
        self._unsure: dict[str, str] = {}
        self._writer = secrets.token_hex(8)
        #: Why Redis cannot be used at the moment; empty when it can.
        self.redis_fault = ""
        state_path(state_dir, "x").parent.mkdir(parents=True, exist_ok=True)

    def save(self, judge: CameraJudge) -> Saved:
        """Store the judge as it is now.

        Raises:
            OSError: Redis is away and the disk refuses too: nothing keeps the snapshot.
        """
        camera_id = judge.author.camera_id
        number = self._saved.get(camera_id, 0) + 1
        body = pack(judge, number)
        order = _text((*judge.ledger.watermark, number))
        stored = self._to_redis(camera_id, judge, order, body)
        if stored is Saved.STALE:
            return stored
        try:
            self._to_disk(camera_id, body)
        except OSError as exc:
            if stored is Saved.DISK:
                raise
            log.warning(
                "judge: no copy of %s on disk: %s", camera_id, exc.strerror, extra={"event": "judge_copy_failed"}
            )
        self._saved[camera_id] = number
        return stored

    def is_overtaken(self, camera_id: str) -> bool:
        """Whether another judge of the camera is further on; False when Redis does not tell."""
        if camera_id not in self._seen or not self.may_try:
            return False
        try:
            with translated("judge snapshot"):
                self._make_sure(camera_id)
                there: bytes | None = self._client.hget(redis_key(camera_id), "order")
        except Unavailable as exc:
            self._away(exc)
            return False
        self._back()
        return there is not None and there.decode() > self._seen[camera_id]

    def _make_sure(self, camera_id: str) -> None:
        """Find out whether Redis has what it was given and did not answer for: it is ours, and not a newer judge's.

        Of two judges that know the same snapshot both may write one of the same order, so the writer is compared too.
        """
        given = self._unsure.get(camera_id)
        if given is None:
            return
        there = self._client.hmget(redis_key(camera_id), "order", "writer")
        if there == [given.encode(), self._writer.encode()]:
            self._seen[camera_id] = given
        del self._unsure[camera_id]

    def _to_redis(self, camera_id: str, judge: CameraJudge, order: str, body: bytes) -> Saved:
        if self._clock.monotonic_s() < self._pause_until_s:
            return Saved.DISK
        fields: list[str | int | bytes] = ["order", order, "writer", self._writer, "state", body]
        for name, value in judge.ledger.counters.items():
            fields += [name, value]
        try:
            with translated("judge snapshot"):
                self._make_sure(camera_id)
                # Not read since Redis was away: whoever is further by the clips alone is.
                known = self._seen.get(camera_id, order)
                self._unsure[camera_id] = order
                stored = self._script(keys=[redis_key(camera_id)], args=[known, *fields])
        except Unavailable as exc:
            self._away(exc)
            return Saved.DISK
        self._back()
        del self._unsure[camera_id]
        if not stored:
            return Saved.STALE
        self._seen[camera_id] = order
        return Saved.BOTH

    def _to_disk(self, camera_id: str, body: bytes) -> None:
        path = state_path(self._state_dir, camera_id)
        # One name per camera, and one judge per camera: what a killed predecessor left half-written is written over.
        beside = path.with_name(f".{path.name}.tmp")
        beside.write_bytes(body)
        beside.replace(path)

    def load(self, camera_id: str) -> bytes | None:
        """The newer of the two copies; None when there is none that can be read."""
        copies = [body for body in (self._from_redis(camera_id), self._from_disk(camera_id)) if body]
        good = [(order, body) for body in copies if (order := self._order(camera_id, body)) is not None]
        if not good:
            return None
        order, body = max(good)
        self._saved[camera_id] = order[2]
        return body

    def _order(self, camera_id: str, body: bytes) -> tuple[int, int, int] | None:
        try:
            return order_of(body)
        except DecodeError as exc:
            log.warning("judge: a copy of %s is of no use: %s", camera_id, exc, extra={"event": "judge_copy_bad"})
            return None

    def _from_redis(self, camera_id: str) -> bytes | None:
        self._seen.pop(camera_id, None)
        self._unsure.pop(camera_id, None)
        try:
            with translated("judge snapshot"):
                order, body = self._client.hmget(redis_key(camera_id), "order", "state")
        except Unavailable as exc:
            self._away(exc)
            return None
        self._back()
        self._seen[camera_id] = order.decode() if order else ""
        found: bytes | None = body
        return found

    def _from_disk(self, camera_id: str) -> bytes | None:
        try:
            return state_path(self._state_dir, camera_id).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            log.warning("judge: cannot read the copy of %s: %s", camera_id, exc.strerror, extra={"event": "judge_copy"})
            return None

    @property
    def may_try(self) -> bool:
        """Whether Redis is worth a try: it answered, or the pause after its failure is over."""
        return self._clock.monotonic_s() >= self._pause_until_s

    def _away(self, exc: Unavailable) -> None:
        self._pause_until_s = self._clock.monotonic_s() + REDIS_PAUSE_S
        if not self.redis_fault:
            log.warning("judge: Redis is away, snapshots go to disk: %s", exc, extra={"event": "redis_down"})
        self.redis_fault = str(exc)

    def _back(self) -> None:
        if self.redis_fault:
            log.info("judge: Redis is back", extra={"event": "redis_up"})
        self.redis_fault = ""


def _text(order: tuple[int, int, int]) -> str:
    """An order as text that compares as the numbers do."""
    return "".join(f"{number:0{_DIGITS}d}" for number in order)
