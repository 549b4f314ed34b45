"""Tasks: which node owns which camera, as granted, and what the nodes' reports say of it.  Pure.

A camera is somebody's from its grant until it is returned here as an orphan; then it is nobody's until it is granted
again, so nothing is returned twice.  A child that is alive and says that its source is away is no time-out: its camera
moves once, to find out whether another node reaches it, and then waits where it is.

The easy mistake: to judge a task when its node is silent.  What the newest report said is judged when it comes; a
node's silence is the business of `membership`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from nodeagent.contract.ids import CameraId, NodeId
from nodeagent.contract.ownership import LEASE_S, Owner
from nodeagent.contract.report import ChildRow, Kind, Phase
from nodeagent.contract.states import State

#: Silence that is allowed before a child runs, seconds: what its supervisor allows a capture that starts, which starts
#: it anew then.  Sooner, a node that takes over fifty cameras at once would lose them again.
START_S = 30.0
#: Silence that is allowed before its node shows a child at all, seconds: the agent hears of a grant within two seconds
#: and may be busy with fifty others.
SHOW_S = 10.0
#: Each time-out of a camera in a row doubles the silence that it is allowed, up to this, seconds: one that no node can
#: serve must not wander through all of them every few seconds.
PATIENCE_MAX_S = 300.0
#: Beyond this many time-outs the allowed silence is at its most anyway; keeps the power small.
_TIMEOUTS_MAX = 10
#: A source that is away for so long is tried from another node, seconds: most that come back by themselves are back.
DOWN_S = 30.0
#: A camera that gave pictures for so long is forgotten as a difficult one, seconds.
GOOD_S = 60.0

#: What a capture says when it is alive and the source, or the way to it, is not.
SOURCE_AWAY = frozenset({State.SOURCE_DOWN, State.STALLED})
#: What it says when it gets pictures.
CAPTURES = frozenset({State.CAPTURING, State.SPARSE_KEYFRAMES, State.ANALYSE_DOWN, State.SOFTWARE_DECODE})


class Why(StrEnum):
    """Why a task ends before its time."""

    #: Its child is missing, or has shown no life for too long, while the node itself reports.
    TIMED_OUT = "timed_out"
    #: Its source is away; another node may reach it.
    SOURCE_DOWN = "source_down"
    #: It was granted to a life of the agent that is over.
    LIFE_ENDED = "life_ended"


@dataclass(frozen=True, slots=True)
class Orphan:
    """A camera that is nobody's from now on: back into the task pool with it.

    Attributes:
        owner: who had it; every epoch up to this one has to stop.
        avoid: nodes on which it did not do; others are better, if there are any.
    """

    camera_id: CameraId
    owner: Owner
    avoid: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True)
class StopTask:
    """Tell the owner to stop the camera, and put it back into the task pool; `detail` is a sentence for a person."""

    orphan: Orphan
    why: Why
    detail: str


@dataclass(slots=True)
class _Past:
    """What is remembered of a difficult camera over its owners."""

    timeouts: int = 0
    failed_on: NodeId | None = None
    #: The node from which it was not reached, before it moved for that.
    moved_from: NodeId | None = None

    @property
    def avoid(self) -> tuple[NodeId, ...]:
        return tuple(sorted({node for node in (self.failed_on, self.moved_from) if node is not None}))


@dataclass(slots=True)
class _Task:
    """A camera with its owner; times in awake seconds.

    Attributes:
        beat_s: when its child was last known to be alive; from the grant on.
        limit_s: how old the beat may be, for what the newest row said that the child does.
        down_s: since when its source is away; none: it is not.
        good_s: since when it gives pictures; none: it does not.
    """

    owner: Owner
    beat_s: float
    limit_s: float = SHOW_S
    down_s: float | None = None
    good_s: float | None = None

    def read(self, row: ChildRow | None, at_s: float) -> None:
        if row is None:
            return
        if row.beat_age_s is not None:
            # An age, not a time: the clocks of two hosts never meet here.
            # No child showed life later than now: believed, it would never time out again.
            self.beat_s = max(self.beat_s, at_s - max(0.0, row.beat_age_s))
        self.limit_s = LEASE_S if row.phase is Phase.RUNNING else START_S
        self.down_s = _since(self.down_s, row.state in SOURCE_AWAY, at_s)
        self.good_s = _since(self.good_s, row.state in CAPTURES, at_s)


def _since(before_s: float | None, holds: bool, at_s: float) -> float | None:
    """Since when something holds: from before, from now, or not at all."""
    return None if not holds else at_s if before_s is None else before_s


@dataclass(slots=True)
class Tasks:
    """Every camera that has an owner.  All times are seconds of the registry's `AwakeClock`."""

    _owned: dict[CameraId, _Task] = field(default_factory=dict)
    _by_node: dict[NodeId, dict[CameraId, _Task]] = field(default_factory=dict)
    _past: dict[CameraId, _Past] = field(default_factory=dict)
    _due: dict[CameraId, tuple[Why, str]] = field(default_factory=dict)
    #: Newest epoch of each camera, so that old news of a grant is known for what it is.
    _epochs: dict[CameraId, int] = field(default_factory=dict)

    def granted(self, camera_id: CameraId, owner: Owner, at_s: float) -> None:
        """A camera has an owner from now on.  News of an epoch that is not above the known one changes nothing."""
        if owner.epoch <= self._epochs.get(camera_id, 0):
            return
        self._take(camera_id)
        task = _Task(owner, at_s)
        self._epochs[camera_id] = owner.epoch
        self._owned[camera_id] = task
        self._by_node.setdefault(owner.node_id, {})[camera_id] = task

    def removed(self, camera_id: CameraId) -> None:
        """A camera is served by nobody any more because that is wanted so.  Its epoch stays known."""
        self._take(camera_id)
        self._past.pop(camera_id, None)

    def owner(self, camera_id: CameraId) -> Owner | None:
        """Who owns a camera; none: nobody."""
        task = self._owned.get(camera_id)
        return None if task is None else task.owner

    def cameras(self, node_id: NodeId) -> tuple[CameraId, ...]:
        """Cameras that a node owns, sorted."""
        return tuple(sorted(self._by_node.get(node_id, ())))

    def count(self, node_id: NodeId) -> int:
        """Number of cameras that a node owns."""
        return len(self._by_node.get(node_id, ()))

    def nodes(self) -> tuple[NodeId, ...]:
        """Nodes that own cameras."""
        return tuple(self._by_node)

    def avoid(self, camera_id: CameraId) -> tuple[NodeId, ...]:
        """Nodes on which a camera did not do since it last gave pictures for a while."""
        past = self._past.get(camera_id)
        return () if past is None else past.avoid

    def reported(self, node_id: NodeId, incarnation: str, rows: Iterable[ChildRow], at_s: float) -> None:
        """Judge a node's tasks by its newest report, `rows`, of the life that is `incarnation`."""
        mine = self._by_node.get(node_id)
        if not mine:
            return
        prefix = f"{Kind.CAPTURE.value}:"
        shown = {row.name.removeprefix(prefix): row for row in rows if row.kind is Kind.CAPTURE}
        for camera_id, task in mine.items():
            if task.owner.incarnation != incarnation:
                self._due[camera_id] = (Why.LIFE_ENDED, "its owner's agent was started anew")
                continue
            task.read(shown.get(camera_id), at_s)
            if task.good_s is not None and at_s - task.good_s >= GOOD_S:
                self._past.pop(camera_id, None)
            why = self._judge(camera_id, task, at_s)
            if why is None:
                self._due.pop(camera_id, None)
            else:
                self._due[camera_id] = why

    def evict(self, node_id: NodeId) -> tuple[Orphan, ...]:
        """Take all of a node's cameras from it."""
        return tuple(self._orphan(camera_id) for camera_id in self.cameras(node_id))

    def take_reborn(self) -> dict[NodeId, tuple[Orphan, ...]]:
        """Take the cameras of lives that are over, by node."""
        ended = sorted(camera_id for camera_id, (why, _) in self._due.items() if why is Why.LIFE_ENDED)
        found: dict[NodeId, tuple[Orphan, ...]] = {}
        for camera_id in ended:
            orphan = self._orphan(camera_id)
            found[orphan.owner.node_id] = (*found.get(orphan.owner.node_id, ()), orphan)
        return found

    def take_stops(self, takers: Collection[NodeId]) -> list[StopTask]:
        """Take the cameras whose tasks have to stop.

        Args:
            takers: nodes that may get cameras.  Where there is no other than its owner, a camera stays, and one whose
                source is away keeps its one move: to be granted to the same node again, with another epoch, would
                cut its recording for nothing.  That node starts anew what hangs, whatever is decided here.
        """
        stops = []
        for camera_id, (why, detail) in sorted(self._due.items()):
            node_id = self._owned[camera_id].owner.node_id
            if all(taker == node_id for taker in takers):
                continue
            past = self._past.get(camera_id) or _Past()
            match why:
                case Why.TIMED_OUT:
                    past.timeouts += 1
                    past.failed_on = node_id
                case Why.SOURCE_DOWN:
                    past.moved_from = node_id
                case _:
                    continue
            self._past[camera_id] = past
            stops.append(StopTask(self._orphan(camera_id), why, detail))
        return stops

    def _judge(self, camera_id: CameraId, task: _Task, at_s: float) -> tuple[Why, str] | None:
        past = self._past.get(camera_id) or _Past()
        silent_s = at_s - task.beat_s
        if silent_s > min(PATIENCE_MAX_S, task.limit_s * 2 ** min(past.timeouts, _TIMEOUTS_MAX)):
            return Why.TIMED_OUT, f"its child has shown no life for {silent_s:.1f} s"
        if task.down_s is not None and at_s - task.down_s >= DOWN_S and past.moved_from is None:
            return Why.SOURCE_DOWN, f"its source is away for {at_s - task.down_s:.0f} s"
        return None

    def _orphan(self, camera_id: CameraId) -> Orphan:
        task = self._owned[camera_id]
        self._take(camera_id)
        return Orphan(camera_id, task.owner, self.avoid(camera_id))

    def _take(self, camera_id: CameraId) -> None:
        self._due.pop(camera_id, None)
        task = self._owned.pop(camera_id, None)
        if task is None:
            return
        mine = self._by_node[task.owner.node_id]
        del mine[camera_id]
        if not mine:
            del self._by_node[task.owner.node_id]
