"""When the silence of nodes is no reason to move their cameras: the brake on evictions.  Pure.

A registry that was stopped, or whose own link is cut, sees nodes fall silent that serve their cameras as before.  To
move all of them at once would do the harm that an eviction is meant to mend.  Three things guard against it: silence is
counted only while the registry looks (`AwakeClock`), many nodes that fall silent together freeze evictions, and so does
a registry that was blind for a lease.  A freeze always ends; what is silent then is evicted and freezes nothing again.

The easy mistake: to count nodes that are long dead.  They would freeze a small rest for ever, or never a large one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from nodeagent.contract.ownership import LEASE_S

#: The registry looks several times a second.  Of a longer pause only so much counts as looking, seconds.
STEP_S = 1.0
#: A freeze lasts no longer than this, seconds: switches and registries are back by then, or somebody has to act.
FREEZE_S = 60.0
#: Fewer nodes that fall silent together freeze nothing: one dead node of two, or two of three, must lose its cameras.
TOGETHER_MIN = 3
#: Silence after which a frozen node is evicted all the same if nobody else hears of it (`core.witnesses`), seconds.
#: Redis has another way to the node, and what a dead one held there runs out in ten.
WITNESS_S = 15.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How long silence is borne, seconds.

    Attributes:
        lease_s: after which a node is dead.
        freeze_s: for which evictions are held at most.
        witness_s: after which a frozen node is evicted all the same, see `WITNESS_S`.
    """

    lease_s: float = LEASE_S
    freeze_s: float = FREEZE_S
    witness_s: float = WITNESS_S

    @property
    def suspect_s(self) -> float:
        """After which a node is looked at twice."""
        return self.lease_s / 2


#: When nobody says otherwise.
USUAL = Limits()


@dataclass(frozen=True, slots=True)
class Frozen:
    """Evictions are held.

    Attributes:
        reason: one sentence for a person.
        since_s: when it began, by the registry's monotonic clock; `until_s` when it ends at the latest.
    """

    reason: str
    since_s: float
    until_s: float


@dataclass(frozen=True, slots=True)
class Thawed:
    """Evictions go on; `reason` is one sentence for a person."""

    reason: str


@dataclass(frozen=True, slots=True)
class Sight:
    """What the brake judges by.  Times of silence are in seconds of the `AwakeClock`.

    Attributes:
        passed_s: since the registry last looked, seconds of the monotonic clock.
        cut_off: whether it is cut off now from what it needs to move cameras.
        due: whether a node has been silent for a lease and is not evicted yet.
        waiting: since when nodes are silent that are not evicted yet.
        gone: since when nodes are silent that were evicted.
        present: number of nodes that are not evicted, silent ones too.
        back_since_s: all of these have reported then or later; minus infinity: one never did.
    """

    passed_s: float
    cut_off: bool
    due: bool
    waiting: Sequence[float]
    gone: Sequence[float]
    present: int
    back_since_s: float


class AwakeClock:
    """Seconds during which the registry ran: it stands still while the registry is stopped."""

    def __init__(self, now_s: float) -> None:
        self._sum_s = 0.0
        self._looked_s = now_s

    def at(self, now_s: float) -> float:
        """Awake seconds at `now_s`, the registry's monotonic clock."""
        return self._sum_s + min(STEP_S, max(0.0, now_s - self._looked_s))

    def look(self, now_s: float) -> float:
        """Go on to `now_s`, and say how long ago the last look was, seconds of the monotonic clock."""
        passed_s = max(0.0, now_s - self._looked_s)
        self._sum_s, self._looked_s = self.at(now_s), self._looked_s + passed_s
        return passed_s


def fell_together(waiting: Sequence[float], gone: Sequence[float], present: int, lease_s: float = LEASE_S) -> bool:
    """Whether at least three nodes, and more than half of all, fell silent within one lease.

    Nodes that were evicted meanwhile count where they fell silent in the same lease, else not at all.

    Args:
        waiting: since when nodes are silent that are not evicted yet.
        gone: the same of evicted ones.
        present: number of nodes that are not evicted.
        lease_s: the lease, seconds.
    """
    since, gone = sorted([*waiting, *gone]), sorted(gone)
    for first, start_s in enumerate(since):
        count = bisect_right(since, start_s + lease_s) - first
        evicted = bisect_right(gone, start_s + lease_s) - bisect_left(gone, start_s)
        if count > evicted and count >= TOGETHER_MIN and 2 * count > present + evicted:
            return True
    return False


class Brake:
    """Holds evictions for a time, or does not."""

    def __init__(self, limits: Limits = USUAL) -> None:
        self._limits = limits
        self._frozen: Frozen | None = None
        #: When it began, awake seconds.
        self._from_s = 0.0
        #: Who was silent since then or longer when a freeze ended is held no more; awake seconds.
        self._settled_s = float("-inf")
        self._blind_s = 0.0

    @property
    def frozen(self) -> Frozen | None:
        """The freeze that is on."""
        return self._frozen

    def holds(self, since_s: float) -> bool:
        """Whether a node that is silent since this awake second must not be evicted now."""
        return self._frozen is not None and since_s > self._settled_s

    def turn(self, sight: Sight, now_s: float, awake_s: float) -> Frozen | Thawed | None:
        """Begin, prolong or end a freeze; what changed."""
        # Pauses do not add up: a registry that is slow at every turn still sees.  Being cut off does.
        blind_s = sight.passed_s if sight.cut_off or sight.passed_s > STEP_S else 0.0
        self._blind_s = blind_s + self._blind_s if sight.cut_off else blind_s
        if self._blind_s >= self._limits.lease_s:
            return self._blind(sight, now_s, awake_s)
        if self._frozen is not None:
            if sight.back_since_s > self._from_s:
                return self.thaw("all nodes report again", awake_s)
            if now_s >= self._frozen.until_s:
                return self.thaw(f"frozen for {now_s - self._frozen.since_s:.0f} s", awake_s)
            return None
        waiting = [since_s for since_s in sight.waiting if since_s > self._settled_s]
        gone = [since_s for since_s in sight.gone if since_s > self._settled_s]
        if sight.due and fell_together(waiting, gone, sight.present, self._limits.lease_s):
            return self._freeze(f"{len(waiting)} of {sight.present} nodes fell silent together", now_s, awake_s)
        return None

    def thaw(self, reason: str, awake_s: float) -> Thawed | None:
        """End the freeze; None when there is none.  Who is silent now freezes nothing again."""
        if self._frozen is None:
            return None
        self._frozen = None
        self._settled_s = awake_s - self._limits.suspect_s
        return Thawed(reason)

    def _blind(self, sight: Sight, now_s: float, awake_s: float) -> Frozen | None:
        """All may have changed unseen: a freeze that is on begins anew, so that every node gets a chance to report."""
        if self._frozen is not None:
            self._freeze(self._frozen.reason, now_s, awake_s)
            return None
        what = "is cut off for" if sight.cut_off else "was stopped or cut off for"
        return self._freeze(f"the registry {what} {self._blind_s:.1f} s", now_s, awake_s)

    def _freeze(self, reason: str, now_s: float, awake_s: float) -> Frozen:
        self._from_s = awake_s
        self._frozen = Frozen(reason, now_s, now_s + self._limits.freeze_s)
        return self._frozen
