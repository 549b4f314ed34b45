"""The judge worker as a process of its own: `python -m tests.support.judge_child CONFIG BOARD STEP COUNT`.

It kills itself with -9 the COUNT-th time it is right before STEP: `publish`, `save`, `ack` or `never`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from nodeagent.infra.board import Board
from nodeagent.infra.bus.streams import StreamsBus
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.stop import Stop
from nodeagent.infra.worker import WorkerContext
from nodeagent.judge.store import JudgeStore
from nodeagent.judge.worker import main as judge_main


def dying(step: Callable[..., object], count: int) -> Callable[..., object]:
    """The step, but the `count`-th call kills the process before anything is done."""
    left = [count]

    def wrapped(*args: object, **more: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args, **more)

    return wrapped


def main() -> int:
    config, board, step, count = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    if step == "publish":
        StreamsBus.publish = dying(StreamsBus.publish, int(count))  # type: ignore[method-assign]
    elif step == "save":
        JudgeStore.save = dying(JudgeStore.save, int(count))  # type: ignore[method-assign]
    elif step == "ack":
        StreamsBus.ack = dying(StreamsBus.ack, int(count))  # type: ignore[method-assign]
    stop = Stop()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.request())
    cell = Board.open(Path(board)).cell(0)
    return judge_main(
        WorkerContext("judge:0", load_settings(Path(config)), cell, stop, SystemClock(), Path(board).parent), "0"
    )


if __name__ == "__main__":
    sys.exit(main())
