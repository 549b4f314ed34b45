"""What the supervisor knows of each kind of child: its worker by dotted path, its limits, its place in the drain.

Pure.  A stage is never imported here: the fork server and the children do that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nodeagent.contract.report import Kind


@dataclass(frozen=True, slots=True)
class KindRow:
    """One kind of child.

    Attributes:
        worker: `module:function` of the worker's main.
        start_limit_s: silence that is allowed before the child is ready, from its start or its last beat: imports and
            first connections on a busy machine.  A worker that needs longer says so (`beat(allow_s=...)`).
        hang_limit_s: silence that is allowed from then on.
        drain_share: share of `node.stop_timeout_s` after whose end this kind is killed in a drain; kinds with a
            smaller share stop first.
        preload: whether the fork server loads it before its first fork.  What it imports is then in all children.
    """

    worker: str
    start_limit_s: float
    hang_limit_s: float
    drain_share: float
    preload: bool = True


#: Beats come every second; ten missed ones are no slow disk any more.  Captures are cheap to start again and lose video
#: while they hang; an inference batch on a busy CPU and a replay cut on a slow disk take longer.  The embedded Redis
#: beats only when it answers, and may be held up by its own fsync.
KINDS: Final[Mapping[Kind, KindRow]] = {
    Kind.REDIS: KindRow("nodeagent.supervisor.redis_worker:main", 20.0, 20.0, 1.0),
    Kind.STORAGE: KindRow("nodeagent.capture.keeper:main", 30.0, 30.0, 0.9),
    Kind.CAPTURE: KindRow("nodeagent.capture.worker:main", 30.0, 10.0, 0.35),
    Kind.INFERENCE: KindRow("nodeagent.inference.worker:main", 60.0, 20.0, 0.55),
    Kind.JUDGE: KindRow("nodeagent.judge.worker:main", 30.0, 15.0, 0.7),
    Kind.ALARM: KindRow("nodeagent.alarm.worker:main", 60.0, 30.0, 0.85),
    # Its web server is loaded by its own process: hundreds of captures need not carry it.
    Kind.ENDPOINT: KindRow("nodeagent.capture.endpoint.worker:main", 30.0, 15.0, 0.9, preload=False),
    # Its calls have time-outs of their own and leave its work loop alone.  It leaves late: what it says of the drain
    # is how a registry knows that the node goes.
    Kind.LINK: KindRow("nodeagent.supervisor.link.worker:main", 30.0, 20.0, 0.95),
    # A registry inside: its web server, too, is loaded by its own process.  A database that hangs holds its start up,
    # and says so.  It hears the link out, and needs the Redis.
    Kind.REGISTRY: KindRow("registry.inside:main", 60.0, 20.0, 0.97, preload=False),
}
