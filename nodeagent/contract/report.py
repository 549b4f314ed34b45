"""What a node says of itself: one row per child process.  `nodeagent status --json` prints it as it stands here."""

from __future__ import annotations

from enum import StrEnum

from nodeagent.contract.ids import Frozen, NodeId, UtcNs
from nodeagent.contract.states import State


class Phase(StrEnum):
    """Where the supervisor is with one child."""

    #: Forked, has not said that it is ready.
    STARTING = "starting"
    #: Ready; its beat is watched.
    RUNNING = "running"
    #: Died; a restart is due.
    BACKOFF = "backoff"
    #: Told to stop, not gone yet.
    STOPPING = "stopping"
    #: Gone because it was told to.
    EXITED = "exited"
    #: Cannot serve with this configuration: retried at the longest delay only.
    FATAL = "fatal"


class Kind(StrEnum):
    """Kinds of children."""

    REDIS = "redis"
    STORAGE = "storage"
    CAPTURE = "capture"
    INFERENCE = "inference"
    JUDGE = "judge"
    ALARM = "alarm"
    ENDPOINT = "endpoint"
    LINK = "link"
    REGISTRY = "registry"


#: Gauges of who consumes a queue: messages in its dead-letter queue, and since when (UTC ns) there are some.
_ASIDE = ("put_aside", "put_aside_ns")
#: Gauges of who serves clips: the capture time at which the newest finished one ends, UTC ns.
_SERVING = ("last_clip_ns", *_ASIDE)
#: Counters of each kind, in the order of the board's cells.  They start at 0 with each node start and survive the
#: restart of a child.  `lag_ms` and other gauges are set, not added to.
COUNTERS: dict[Kind, tuple[str, ...]] = {
    Kind.REDIS: ("memory_bytes", "keys"),
    Kind.STORAGE: ("clips", "bytes", "deleted", "free_bytes", "quota_bytes"),
    Kind.CAPTURE: (
        "frames",
        "samples",
        "clips_made",
        "clips_announced",
        "clips_unconfirmed",
        "bytes",
        "reconnects",
        "gap_ms",
        "decode_errors",
        "repaired",
        "last_sample_ns",
        "analyse_clips",
        "analyse_bytes",
        "stream_offset_ms",
        "fsyncs",
        # The epoch that it records with; a gauge.
        "epoch",
    ),
    Kind.INFERENCE: (
        "clips",
        "samples",
        "from_ring",
        "from_clip",
        "unknown",
        "refused",
        "boxes",
        "infer_ms",
        # Clips taken from the node's own queue and not done with; a gauge.
        "in_hand",
        *_SERVING,
    ),
    Kind.JUDGE: (
        "clips",
        "samples",
        "duplicates",
        "fenced",
        "gaps",
        "alarms",
        "refused",
        "cameras",
        # Detections taken from its own queue and not done with, and those that it put off and that come back; gauges.
        "in_hand",
        "put_off",
        *_SERVING,
    ),
    Kind.ALARM: (
        "received",
        "rows",
        "pushed",
        "push_failures",
        "partial",
        "duplicates",
        "refused",
        # New alarms that nobody is told of because there were too many within the hour.
        "braked",
        "waiting",
        # Alarms of this node's own recordings among those that wait.
        "waiting_own",
        "lag_ms",
        *_ASIDE,
    ),
    Kind.ENDPOINT: ("requests", "bytes", "refused", "limited", "failed", "transfers"),
    Kind.LINK: ("reports", "failed", "cameras", "given", "taken", "answer_ms", "seq"),
    # Gauges.
    Kind.REGISTRY: ("cameras", "nodes"),
}


class ChildRow(Frozen):
    """One child process as the status board shows it."""

    #: `kind` or `kind:what`, for example `capture:gate-2`.
    name: str
    kind: Kind
    pid: int
    phase: Phase
    state: State
    #: Wall clock, UTC ns, when `state` was entered.
    state_since_ns: int
    #: One sentence on the state's cause, free of secrets.
    detail: str
    #: Seconds since the work loop last showed that it runs; none before the first time.
    beat_age_s: float | None
    restarts: int
    #: Wall clock, UTC ns, when the process was started.
    started_ns: int
    counters: dict[str, int]


class NodeReport(Frozen):
    """One node and all of its children."""

    node_id: NodeId
    host: str
    version: str
    agent_pid: int
    started_ns: UtcNs
    rows: tuple[ChildRow, ...]
