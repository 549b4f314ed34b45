"""Who owns which camera: what agents and registries tell each other, and under which names Redis holds it.

An owner is a node in one life of its agent (its incarnation) with an epoch, a number that grows at every change of a
camera's owner.  A broadcast is a hint: whoever misses one finds the same in Redis within two seconds.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from nodeagent.contract.errors import DecodeError
from nodeagent.contract.ids import CameraId, Epoch, Frozen, ModelName, NodeId, UtcNs
from nodeagent.contract.probe import RESULTS_MOST, ProbeResult
from nodeagent.contract.report import NodeReport

#: Hash: camera id -> JSON of `TaskStatus`.
STATUS_HASH = "camera_task_status"
#: List of camera ids that nobody owns.
POOL_LIST = "camera_task_pool"
#: Hash: node id -> number of cameras that it owns.
LOAD_HASH = "container_load"
#: Key per camera: text of its `Owner`, which expires when the owner stops renewing it.
LOCK_PREFIX = "task_lock:"
#: Channel of `Broadcast`s.
CHANNEL = "camera_task_broadcast"

#: How long an owner's key lives without being renewed, ms.
LOCK_MS = 10_000
#: How often an agent renews its keys and looks whether it still owns its cameras, seconds.
RECONCILE_S = 2.0
#: Silence after which a node is taken for dead, seconds.
LEASE_S = 4.0
#: How often an agent reports, seconds.
REPORT_S = 1.0
#: Clocks of two hosts that differ by more than this are told of, ns.
SKEW_NS = 1_000_000_000

#: One life of an agent: sixteen hexadecimal digits.
Incarnation = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
#: Number of the last change of a camera's configuration; grows by one with each.
Version = Annotated[int, Field(ge=1, lt=2**63)]
#: Infinity would be a number that no sum comes back from.
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
#: The most that a report may say of one resource: a petabyte, or as many bytes a second.  Sums over all cameras of a
#: site stay far from infinity.
AMOUNT_MOST = 1e15
#: Models that a report names at most: a node has a handful in its memory.
MODELS_MOST = 1000
#: How many there are of something.
Count = Annotated[int, Field(ge=0, lt=2**63)]
_OWNER = re.compile(
    r"^(?P<node>[A-Za-z0-9][A-Za-z0-9_.-]{0,62})/(?P<incarnation>[0-9a-f]{16})/(?P<epoch>[1-9]\d{0,18})$"
)


class Resources(Frozen):
    """What a node has, or a camera needs, of what nodes run short of.

    Attributes:
        decode_cores: CPU cores for capturing and decoding.
        infer_per_s: samples that inference looks at, per second.
        ring_bytes: shared memory for rings.
        write_bytes_s: bytes that the pool takes, per second.
    """

    decode_cores: Amount = 0.0
    infer_per_s: Amount = 0.0
    ring_bytes: Amount = 0.0
    write_bytes_s: Amount = 0.0


def _believable(told: Resources) -> Resources:
    if max(told.decode_cores, told.infer_per_s, told.ring_bytes, told.write_bytes_s) > AMOUNT_MOST:
        raise PydanticCustomError("amount_too_large", "expected at most 1e15 of each resource")
    return told


#: Resources as a report tells them.
ToldResources = Annotated[Resources, AfterValidator(_believable)]


class Owner(Frozen):
    """A node in one life of its agent, and the epoch with which it owns a camera; the value of `task_lock:<camera>`."""

    node_id: NodeId
    incarnation: Incarnation
    epoch: Epoch

    def __str__(self) -> str:
        return f"{self.node_id}/{self.incarnation}/{self.epoch}"

    @classmethod
    def parse(cls, text: str) -> Owner:
        """The owner whose text this is.

        Raises:
            DecodeError: it is none.
        """
        found = _OWNER.match(text)
        if found is None or int(found["epoch"]) >= 2**63:
            raise DecodeError("not an owner, expected node/incarnation/epoch", text.encode())
        return cls(node_id=found["node"], incarnation=found["incarnation"], epoch=int(found["epoch"]))


class TaskPhase(StrEnum):
    """Where a camera is between two nodes."""

    #: A node owns it.
    OWNED = "owned"
    #: Nobody does; it waits in the task pool.
    POOLED = "pooled"


class TaskStatus(Frozen):
    """What Redis says of one camera.

    Attributes:
        owner: who owns it, or owned it last; its epoch is the highest that was ever granted.
        since_ms: when it came into this phase, by the clock of Redis, ms.
    """

    v: Literal[1] = 1
    phase: TaskPhase
    owner: Owner | None
    since_ms: Annotated[int, Field(ge=0)]


class Holding(Frozen):
    """A camera that an agent serves.

    Attributes:
        epoch: with which it was granted.
        version: of the configuration that it is served with.
    """

    camera_id: CameraId
    epoch: Epoch
    version: Version


class Unfinished(Frozen):
    """What a node that serves no camera has still to do with what it recorded; of each, None: not known now.

    Attributes:
        cameras: those whose captures run still, or whose last clips are not all announced.
        clips: announced ones that wait for its inference, or are in its workers' hands.
        detections: messages that wait for its judges, are in their hands, or were put off and come back to them.
        alarms: those of its recordings that its workers have in hand.
    """

    cameras: Count | None = None
    clips: Count | None = None
    detections: Count | None = None
    alarms: Count | None = None

    @property
    def is_known(self) -> bool:
        """Whether all of it is known."""
        return None not in self._counts

    @property
    def is_over(self) -> bool:
        """Whether it is known that nothing is left to do."""
        return not any(self._counts) and self.is_known

    @property
    def _counts(self) -> tuple[int | None, ...]:
        return self.cameras, self.clips, self.detections, self.alarms


class AgentReport(Frozen):
    """What an agent reports once a second: one report for all of its children.

    Attributes:
        incarnation: this life of the agent; another one with the same `node_id` is another agent.
        seq: grows by one with each report of this life.
        sent_ns: wall clock of the host when it was sent.
        labels: free words for placement, such as `site`, `network`, `gpu`.
        capacity: what the node has; left out: not known, it takes part by count alone.
        costs: what cameras were measured to need here, by camera.
        holds: cameras that it serves.
        models: names of those that it has loaded; left out: not told, each is taken to be there.
        draining: it was told to stop and hands its cameras over.
        probes: results of probes, each until a report that held it was answered.
        unfinished: what it has still to do; None while it serves cameras, as more comes, and from older agents.
    """

    v: Literal[1] = 1
    report: NodeReport
    incarnation: Incarnation
    seq: Annotated[int, Field(ge=1)]
    sent_ns: UtcNs
    labels: dict[str, str] = Field(default_factory=dict, max_length=32)
    capacity: ToldResources | None = None
    costs: dict[CameraId, ToldResources] = Field(default_factory=dict)
    holds: tuple[Holding, ...] = ()
    models: Annotated[tuple[ModelName, ...], Field(max_length=MODELS_MOST)] | None = None
    draining: bool = False
    probes: tuple[ProbeResult, ...] = Field(default=(), max_length=RESULTS_MOST)
    unfinished: Unfinished | None = None


class ReportAnswer(Frozen):
    """What the registry answers to a report.

    Attributes:
        registry_id: who answers.
        now_ns: its wall clock.
        cameras_version: another one after a change of a camera that the node serves, owns or may claim; an agent that
            has another one asks for its list.
        warnings: sentences for a person, such as a clock that is off.
        captured: of the cameras that the node serves, those that another one owns and captures by now, and who: they
            may be let go.  Left out by older registries, which nobody may take for a word that somebody captures.
        probes: orders for this node (`contract.probe.ProbeOrder`), each until its result came.  Not read with the rest,
            so that one of a newer registry spoils no answer.
    """

    v: Literal[1] = 1
    registry_id: str
    now_ns: UtcNs
    cameras_version: Annotated[int, Field(ge=0)]
    warnings: tuple[str, ...] = ()
    captured: dict[CameraId, Owner] = Field(default_factory=dict)
    probes: tuple[dict[str, Any], ...] = Field(default=(), repr=False)


class Told(StrEnum):
    """What a broadcast tells."""

    #: A camera has a new owner.
    GRANTED = "granted"
    #: A camera's task timed out or moved: whoever serves it with an epoch up to this one stops.
    STOP = "stop"
    #: A camera's configuration, or its rules, changed.
    CHANGED = "changed"
    #: Agents of strategy `claim`: the task pool has cameras.
    POOLED = "pooled"


class Broadcast(Frozen):
    """A hint to all agents.

    Attributes:
        node_id: the one that it concerns most; empty: any.
        epoch: the new owner's, or the last that has to stop; 0 where epochs do not matter.
        version: of the configuration that changed; 0 where that does not matter.
    """

    v: Literal[1] = 1
    told: Told
    camera_id: CameraId
    node_id: NodeId | Literal[""] = ""
    epoch: Annotated[int, Field(ge=0, lt=2**63)] = 0
    version: Annotated[int, Field(ge=0, lt=2**63)] = 0
