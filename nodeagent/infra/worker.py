"""What a supervised child gets from its parent, and nothing else.

A stage's `worker.py` has `main(ctx, arg) -> int`: `arg` is the part of the child's name after the colon (camera id,
shard or number), the result its exit code.  The supervisor names it by dotted path only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nodeagent.infra.board import BoardCell
from nodeagent.infra.clock import Clock
from nodeagent.infra.settings.sections import Settings
from nodeagent.infra.stop import Stop

#: Exit code of a worker that was told to stop and drained.
EXIT_OK = 0
#: Exit code of a worker that failed; it is started again with back-off.
EXIT_FAILED = 1
#: Exit code of a worker that cannot serve with this configuration: it is retried at the longest delay only.
EXIT_FATAL = 3


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """A child's surroundings.

    Attributes:
        name: `kind` or `kind:arg`.
        settings: the whole configuration as it was when this child was started.
        cell: the child's cell of the status board; its work loop calls `cell.beat()` at least once a second.
        stop: set by TERM; the work loop drains and returns.
        clock: the machine's clocks.
        memory_dir: this incarnation's folder on tmpfs: rings and the status board lie there.
    """

    name: str
    settings: Settings
    cell: BoardCell
    stop: Stop
    clock: Clock
    memory_dir: Path

    @property
    def wanted_path(self) -> Path:
        """File with the cameras that this node should serve now (`infra.wanted`); it changes while workers run."""
        return self.settings.node.state_dir / "wanted.json"
