"""Alarm workers that are killed at a named step: `python -m tests.support.alarm_nursery`.

Loads everything once, then forks a worker per line of standard input, so that a worker costs milliseconds:
`{"folder", "push": url, "secret", "crash_at": step or ""}` -> `{"exit": code}` (-9: killed).  The bus is a folder: the
message in `message.json` comes again until `settled` has a line.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from nodeagent.alarm.worker import serve
from nodeagent.contract.codec import Message
from nodeagent.infra.bus.port import Delivery
from nodeagent.infra.database import open_database
from nodeagent.infra.settings.sections import PushSettings
from nodeagent.infra.worker import WorkerContext
from tests.support.alarms import worker_context

#: Seconds after which a worker that neither ends nor crashes is killed by the kernel.
LIMIT_S = 60


class FolderBus:
    """One message in a folder; settling it is one synced line."""

    connected = True

    def __init__(self, folder: Path, ctx: WorkerContext) -> None:
        self._folder = folder
        self._ctx = ctx
        self._given = False

    def declare(self) -> None:
        """Nothing to make."""

    def consume(self, _queue: str, _prefetch: int) -> None:
        """Always on."""

    def get(self, timeout_s: float) -> Delivery | None:
        settled = (self._folder / "settled").exists()
        if settled:
            self._ctx.stop.request()
        if settled or self._given:
            self._ctx.stop.wait(min(timeout_s, 0.02))
            return None
        self._given = True
        body = (self._folder / "message.json").read_bytes()
        return Delivery("alarms", "gate-1", Message(body, {"type": "alarm"}), 1)

    def ack(self, _delivery: Delivery) -> None:
        self._settle("ack")

    def dead(self, _delivery: Delivery, reason: str) -> None:
        self._settle(f"dead {reason}")

    def later(self, _delivery: Delivery, _delay_s: float) -> None:
        self._given = False

    def _settle(self, how: str) -> None:
        with (self._folder / "settled").open("a") as out:
            out.write(how + "\n")
            out.flush()
            os.fsync(out.fileno())


def work(order: dict[str, Any]) -> int:
    """One worker's life; returns its exit code, if it lives."""
    signal.alarm(LIMIT_S)
    folder = Path(order["folder"])
    push = PushSettings.model_validate({"name": "crm", "url": order["push"], "secret": order["secret"]})
    ctx = worker_context(folder, (push,))

    def checkpoint(step: str) -> None:
        if step == order["crash_at"]:
            os.kill(os.getpid(), signal.SIGKILL)

    return serve(ctx, "0", open_database(ctx.settings.database_url), FolderBus(folder, ctx), checkpoint)  # type: ignore[arg-type]


def main() -> None:
    """Serve orders until the end of standard input."""
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            code = 70
            try:
                code = work(json.loads(line))
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"exit": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
