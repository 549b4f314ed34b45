"""Which children there should be.  Pure.

In a drain the roster shrinks by stages: the captures go first, so that their last clips can still be announced, the
embedded Redis last, because all others use it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.report import Kind
from nodeagent.infra.settings.sections import Settings
from nodeagent.supervisor.kinds import KindRow


@dataclass(frozen=True, slots=True)
class Want:
    """One child that should run.

    Attributes:
        kind: what it is.
        arg: the part of its name after the colon; empty when there is one of a kind.
        part: what it was started for; a child whose part differs from the wanted one is stopped and started anew.
    """

    kind: Kind
    arg: str
    part: Any = None

    @property
    def name(self) -> str:
        """Name on the status board and in logs."""
        return f"{self.kind.value}:{self.arg}" if self.arg else self.kind.value


Roster = Mapping[str, Want]


def full_roster(settings: Settings, cameras: Iterable[CameraSpec]) -> Roster:
    """Every child of a running node, the embedded Redis first."""
    wants = [Want(Kind.REDIS, "")] if settings.embedded_redis else []
    wants.append(Want(Kind.STORAGE, ""))
    wants += [Want(Kind.JUDGE, str(i)) for i in range(settings.judge.shards)]
    wants += [Want(Kind.ALARM, str(i)) for i in range(settings.alarm.workers)]
    wants += [Want(Kind.INFERENCE, str(i)) for i in range(settings.inference.workers)]
    if settings.endpoint is not None:
        wants.append(Want(Kind.ENDPOINT, ""))
    if settings.registry is not None:
        wants.append(Want(Kind.LINK, ""))
    wants += [Want(Kind.CAPTURE, camera.camera_id, camera.capture_part) for camera in cameras]
    if settings.registry_inside:
        # It takes a second of a core to load, which no capture waits for.
        wants.append(Want(Kind.REGISTRY, ""))
    return {want.name: want for want in wants}


@dataclass(frozen=True, slots=True)
class DrainStep:
    """How far a drain is.

    Attributes:
        keep: kinds that still run on.
        stop_by_s: monotonic time at which each other kind is killed.
    """

    keep: frozenset[Kind]
    stop_by_s: Mapping[Kind, float]


def drain_step(
    kinds: Mapping[Kind, KindRow], alive: Collection[Kind], started_s: float, total_s: float, now_s: float
) -> DrainStep:
    """Stop the kinds in the order of their share; the next ones when those before are gone or their time is over."""
    stop_by_s = {kind: started_s + row.drain_share * total_s for kind, row in kinds.items()}
    for kind in sorted(kinds, key=stop_by_s.__getitem__):
        if kind in alive and now_s < stop_by_s[kind]:
            later = frozenset(other for other in kinds if stop_by_s[other] > stop_by_s[kind])
            return DrainStep(later, stop_by_s)
    return DrainStep(frozenset(), stop_by_s)


def kept(roster: Roster, keep: Collection[Kind]) -> Roster:
    """The children of these kinds only."""
    return {name: want for name, want in roster.items() if want.kind in keep}
