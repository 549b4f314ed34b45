"""The clerk: all of the registry's talk with its database, in one thread, so that nothing else waits for it.

It writes behind what the loop decided and reads what people want.  While the database is away, what is to be written
waits here, so much of it at most; whatever is lost with a kill -9 before it was written is found by the next audit,
which compares the open grants in the database with the live state.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from nodeagent.contract.errors import AgentError, DecodeError, Unavailable
from nodeagent.contract.ids import NS_PER_S, CameraId, NodeId
from nodeagent.contract.ownership import Owner
from nodeagent.infra.clock import Clock
from registry.core.catalogue import Catalogue
from registry.store.assignments import Assignments, End, Grant
from registry.store.epochs import Epochs
from registry.store.errors import Invalid
from registry.store.nodes import DrainOrder, Nodes, Seen

log = logging.getLogger(__name__)

_Item = TypeVar("_Item")

#: Seconds between two turns: how late a change that another program wrote is noticed at most.
TURN_S = 1.0
#: Seconds between two notes of who reported.
SEEN_S = 30.0
#: Seconds between two audits.
AUDIT_S = 60.0
#: Grants and ends that wait for the database, each: an hour of a site where everything moves.  The oldest go first; the
#: audit writes the newest down none the less.
WAITING_MOST = 100_000
#: Grants written in one turn, so that a long queue does not keep the clerk from reading.
WRITE_MOST = 5_000
#: Seconds between two rounds of forgetting, and the age in days after which ended grants are forgotten.
FORGET_S = 600.0
FORGET_DAYS = 90


@dataclass(frozen=True, slots=True)
class Shelves:
    """What is kept in the database, by noun."""

    catalogue: Catalogue
    epochs: Epochs
    assignments: Assignments
    nodes: Nodes


class Clerk:
    """Reads and writes the database; see the module."""

    def __init__(
        self,
        shelves: Shelves,
        clock: Clock,
        served: Callable[[], Mapping[CameraId, int]],
        changed: Callable[[Mapping[CameraId, int]], None],
        live: Callable[[], Mapping[CameraId, Owner] | None],
    ) -> None:
        """Args:
        served: the version of its configuration with which each camera is served now.
        changed: told of new versions of configurations, 0 of a deleted camera's.
        live: all owners that there are; none: this registry does not lead, and cannot tell.
        """
        self._shelves, self._clock = shelves, clock
        self._served, self._changed, self._live = served, changed, live
        self._lock = threading.Lock()
        self._grants: deque[Grant] = deque(maxlen=WAITING_MOST)
        self._ends: deque[End] = deque(maxlen=WAITING_MOST)
        self._seen: dict[NodeId, Seen] = {}
        self._asked: deque[Future[dict[CameraId, Owner]]] = deque()
        self._drains: Mapping[NodeId, DrainOrder] = {}
        self._is_loaded = False
        self._trouble = ""
        self._seen_at_s = self._audit_at_s = self._forget_at_s = float("-inf")
        self._wake = threading.Event()
        self._closing = False

    # What others tell and ask; any thread, and none of it waits for the database unless it says so.

    @property
    def trouble(self) -> str:
        """Why the database cannot be used now; empty: it can."""
        return self._trouble

    @property
    def is_loaded(self) -> bool:
        """Whether epochs, cameras and orders were read since the start."""
        return self._is_loaded

    @property
    def drains(self) -> Mapping[NodeId, DrainOrder]:
        """Orders to drain, as they were read last."""
        return self._drains

    def granted(self, grant: Grant) -> None:
        """Write a grant down, some time."""
        with self._lock:
            self._grants.append(grant)

    def ended(self, end: End) -> None:
        """Write the end of a grant down, some time."""
        with self._lock:
            self._ends.append(end)

    def seen(self, seen: Mapping[NodeId, Seen]) -> None:
        """Write down who reported, some time."""
        with self._lock:
            self._seen.update(seen)

    def forget(self, node_id: NodeId) -> None:
        """Do not write down any more that a node reported."""
        with self._lock:
            self._seen.pop(node_id, None)

    def poke(self) -> None:
        """Somebody wrote into the database: read it now."""
        self._wake.set()

    def ask_owners(self) -> Future[dict[CameraId, Owner]]:
        """Who owned which camera, by the database; Unavailable when it is away."""
        asked: Future[dict[CameraId, Owner]] = Future()
        self._asked.append(asked)
        self._wake.set()
        return asked

    # The thread.

    def run(self) -> None:
        """Work until `close`."""
        while not self._closing:
            try:
                self.turn()
            except Exception:
                # The outermost line of the thread: what cannot be written must not end all that could be.
                log.exception("the clerk's turn failed; goes on", extra={"event": "clerk_error"})
            self._wake.wait(TURN_S)
            self._wake.clear()
        self.turn()

    def close(self) -> None:
        """Write what is left, as far as the database takes it, and end."""
        self._closing = True
        self._wake.set()

    def turn(self) -> None:
        """Read and write once.  A database that is away is told of once, and asked again in the next turn."""
        try:
            self._load()
            self._answer()
            self._write()
        except (Unavailable, DecodeError, Invalid) as exc:
            self._fail(exc)
        else:
            if self._trouble:
                log.info("the database answers again", extra={"event": "database_up"})
            self._trouble = ""

    def _load(self) -> None:
        shelves, now_ns = self._shelves, self._clock.wall_ns()
        if not self._is_loaded:
            shelves.epochs.load()
        before = shelves.catalogue.restorations
        changed = shelves.catalogue.refresh(dict(self._served()), now_ns)
        if shelves.catalogue.restorations > before:
            log.warning(
                "the database is older than it was: cameras and epochs are read and written anew",
                extra={"event": "database_restored"},
            )
            shelves.epochs.load()
            self._audit_at_s = self._seen_at_s = float("-inf")
        self._drains = shelves.nodes.drains()
        was_loaded, self._is_loaded = self._is_loaded, True
        if changed and was_loaded:
            self._changed(changed)

    def _answer(self) -> None:
        while self._asked:
            asked = self._asked.popleft()
            try:
                asked.set_result(self._shelves.assignments.owners())
            except AgentError as exc:
                asked.set_exception(exc)
                raise

    def _write(self) -> None:
        now_s, now_ns = self._clock.monotonic_s(), self._clock.wall_ns()
        # Grants before ends, and epochs first of all: nothing is worth as much as an epoch that is known.
        self._shelves.epochs.save()
        self._flush(self._grants, lambda grants: self._shelves.assignments.record(grants, now_ns))
        self._flush(self._ends, self._shelves.assignments.end)
        if now_s - self._seen_at_s >= SEEN_S:
            self._note_seen()
            self._seen_at_s = now_s
        if now_s - self._audit_at_s >= AUDIT_S and not self._grants:
            self._audit(now_ns)
            self._audit_at_s = now_s
        if now_s - self._forget_at_s >= FORGET_S:
            self._shelves.assignments.forget(now_ns - FORGET_DAYS * 86_400 * NS_PER_S)
            self._forget_at_s = now_s

    def _flush(self, queue: deque[_Item], write: Callable[[Sequence[_Item]], None]) -> None:
        """Write the head of a queue; what a database that is away could not take stays."""
        with self._lock:
            part = [queue[at] for at in range(min(len(queue), WRITE_MOST))]
        if not part:
            return
        _write_each(part, write)
        with self._lock:
            # Only what was written: a full queue may have dropped its head meanwhile.
            for item in part:
                if queue and queue[0] is item:
                    queue.popleft()

    def _note_seen(self) -> None:
        with self._lock:
            seen = dict(self._seen)
        self._shelves.nodes.see(seen)
        with self._lock:
            # Who reported since stays.  Written again, a node that was forgotten meanwhile would be back.
            self._seen = {node_id: one for node_id, one in self._seen.items() if seen.get(node_id) != one}

    def _audit(self, now_ns: int) -> None:
        # In this order: a grant that is made in between is in `live` only, and not taken for one that ended.
        stored = self._shelves.assignments.owners()
        live = self._live()
        if live is None:
            return
        missing = [
            Grant(camera_id=camera_id, owner=owner, reason="found in the live state", granted_ns=now_ns)
            for camera_id, owner in live.items()
            if owner.epoch > (stored[camera_id].epoch if camera_id in stored else 0)
        ]
        gone = [
            End(camera_id=camera_id, epoch=owner.epoch, reason="not in the live state", ended_ns=now_ns)
            for camera_id, owner in stored.items()
            if camera_id not in live
        ]
        if missing or gone:
            log.info(
                "audit: %d grants were not written down, %d had ended", len(missing), len(gone),
                extra={"event": "assignments_audited", "missing": len(missing), "gone": len(gone)},
            )  # fmt: skip
        _write_each(missing, lambda grants: self._shelves.assignments.record(grants, now_ns))
        _write_each(gone, self._shelves.assignments.end)

    def _fail(self, exc: AgentError) -> None:
        if not self._trouble:
            log.error("%s; grants go on, and are written down later", exc, extra={"event": "database_down"})
        self._trouble = str(exc)
        for asked in self._taken():
            asked.set_exception(exc)

    def _taken(self) -> Iterable[Future[dict[CameraId, Owner]]]:
        while self._asked:
            yield self._asked.popleft()


def _write_each(items: Sequence[_Item], write: Callable[[Sequence[_Item]], None]) -> None:
    """Write all of them; one that cannot be written is set aside with an error, and keeps no other from it.

    Raises:
        Unavailable: the database is away; some may have been written, and doing it again is harmless.
    """
    try:
        write(items)
    except Unavailable:
        raise
    except Exception as exc:
        if len(items) > 1:
            half = len(items) // 2
            _write_each(items[:half], write)
            _write_each(items[half:], write)
            return
        why = str(exc) if isinstance(exc, AgentError) else type(exc).__name__
        log.error(  # noqa: TRY400  (the row says more than where it was refused)
            "cannot be written down, and is left out: %s: %r", why, items[0], extra={"event": "row_left_out"}
        )
