"""Signals as items that the loop reads when it is ready.

The handlers do nothing; the interpreter's wake-up descriptor carries the numbers, so nothing runs in signal context.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

#: Signals that the supervisor acts on, and that only it acts on when they reach the whole process group.
TAKEN = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Bytes read at once; one byte is one signal.
READ_BYTES = 512

Handler = Callable[[int, FrameType | None], Any] | int | None


class Inbox:
    """Owns the process's signal handlers until `close`; main thread only."""

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._before: dict[signal.Signals, Handler] = {number: signal.signal(number, _noted) for number in TAKEN}

    def fileno(self) -> int:
        """Readable when there is something to drain."""
        return self._read_fd

    def drain(self) -> list[signal.Signals]:
        """The signals since the last call, oldest first."""
        try:
            numbers = os.read(self._read_fd, READ_BYTES)
        except BlockingIOError:
            return []
        return [signal.Signals(number) for number in numbers if number in TAKEN]

    def close(self) -> None:
        """Give the handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._read_fd)
        os.close(self._write_fd)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The interpreter has written the number already."""
