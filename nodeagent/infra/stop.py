"""A request to stop, made in a signal handler and waited for in a work loop.

`threading.Event` takes a lock and may deadlock when a handler sets it while the same thread is inside it; a flag and a
pipe cannot.
"""

from __future__ import annotations

import os
import select


def wait_readable(fd: int, timeout_s: float) -> bool:
    """Sleep until the descriptor can be read, or for `timeout_s`; whether it can.

    Not by `select`, which knows no descriptor above 1023.
    """
    asked = select.poll()
    asked.register(fd, select.POLLIN)
    return bool(asked.poll(timeout_s * 1000))


class Stop:
    """A one-way flag that can be waited for."""

    def __init__(self) -> None:
        self._requested = False
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def __del__(self) -> None:
        os.close(self._read_fd)
        os.close(self._write_fd)

    @property
    def requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self._requested

    def request(self) -> None:
        """Ask to stop.  Safe in a signal handler and from any thread."""
        if not self._requested:
            self._requested = True
            os.write(self._write_fd, b"x")

    def wait(self, timeout_s: float) -> bool:
        """Sleep until a request or `timeout_s`; return whether one was made."""
        if not self._requested and timeout_s > 0:
            wait_readable(self._read_fd, timeout_s)
        return self._requested

    def fileno(self) -> int:
        """A descriptor that is readable from the request on."""
        return self._read_fd
