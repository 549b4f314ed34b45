"""Starting children through multiprocessing's fork server, and knowing for sure when one of them is gone.

Every process is held by a pidfd: it says when *this* process ends, and a signal through it never hits another one.  The
pipe that multiprocessing watches instead closes when the fork server dies, although the child lives on.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Final

from nodeagent.contract.errors import Unavailable
from nodeagent.infra.worker import EXIT_FAILED
from nodeagent.supervisor import child
from nodeagent.supervisor.child import Order
from nodeagent.supervisor.descriptors import expect_spare

#: Environment of the fork server.  It keeps libraries from starting threads when they are imported.  BLAS: one thread
#: per core.  ONNX Runtime from 1.27 on: a sender of usage data to its maker, which has no place in a plant's network
#: anyway.  And the C library from giving each thread of a child a heap of its own, which it hardly uses: 3 MB a camera.
SURROUNDINGS: Final = {
    "MALLOC_ARENA_MAX": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}
#: Imported by the fork server before anything else.
SHIELD: Final = "nodeagent.supervisor.shield"
#: The fork server hands an exit code on right after the child has ended, seconds.
CODE_WAIT_S = 1.0


#: Bytes of a Unix socket's path, and what multiprocessing puts behind a folder: `/pymp-12345678/listener-12345678`.
SOCKET_PATH_MAX: Final = 107
SOCKET_NAME: Final = 32


def keep_socket_in(memory_dir: Path) -> None:
    """Have the fork server's socket lie in this life's folder: so it goes with it, also after a kill -9 of everything.

    For the whole process.  In a folder of a very long name it stays where temporary files lie.
    """
    if len(os.fsencode(memory_dir)) + SOCKET_NAME <= SOCKET_PATH_MAX:
        tempfile.tempdir = str(memory_dir)


@dataclass(slots=True)
class Running:
    """One started process.

    Attributes:
        pid: its number, for people.
        pidfd: readable once it has ended.
    """

    process: ForkServerProcess
    pid: int
    pidfd: int

    def send(self, *signals: signal.Signals) -> None:
        """Signal it; harmless once it has ended."""
        for number in signals:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                return

    def reap(self) -> int:
        """Its exit code, negative for a signal; call once the pidfd is readable.  The handle is spent."""
        self.process.join(CODE_WAIT_S)
        code = self.process.exitcode
        if code is not None:
            self.process.close()
        os.close(self.pidfd)
        # None: the fork server, which alone knows the code, is dead or stuck.
        return EXIT_FAILED if code is None else code


class Starter:
    """Starts children; there is one per supervisor."""

    def __init__(self, preload: str) -> None:
        self.preload = preload
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([SHIELD, preload])
        #: Readable once the fork server has ended; None while there is none.
        self.server_pidfd: int | None = None
        self._server_pid: int | None = None

    def start(self, order: Order) -> Running:
        """Start one child; takes as long as the fork server's imports the first time.

        Raises:
            Unavailable: no process could be made; try again later.
        """
        os.environ.update(SURROUNDINGS)
        process = self._context.Process(target=child.run, args=(order,), name=order.name)
        try:
            expect_spare()
            with _bare_main():
                process.start()
            self._hold_server()
            pid = process.pid or 0
            return Running(process, pid, os.pidfd_open(pid))
        except (OSError, EOFError, Unavailable) as exc:
            if process.pid is not None:
                # It runs, but nobody would learn how it ends: its successor must not find it at work.
                process.kill()
                process.join(CODE_WAIT_S)
            raise Unavailable(f"{order.name} cannot be started: {exc}") from exc

    def server_died(self) -> None:
        """Let go of a dead fork server; the next start makes a new one."""
        if self.server_pidfd is not None:
            os.close(self.server_pidfd)
        self.server_pidfd = self._server_pid = None

    def close(self) -> None:
        """End the fork server.  The caller has ended all children."""
        if self.server_pidfd is None:
            return
        # Killed first: a stopped one would keep us waiting for its end.
        signal.pidfd_send_signal(self.server_pidfd, signal.SIGKILL)
        getattr(multiprocessing.forkserver._forkserver, "_stop")()  # noqa: B009
        self.server_died()

    @property
    def server_pid(self) -> int | None:
        """The fork server's number, for people and tests."""
        return self._server_pid

    def _hold_server(self) -> None:
        # Multiprocessing has no public name for it.
        pid: int = getattr(multiprocessing.forkserver._forkserver, "_forkserver_pid")  # noqa: B009
        if pid != self._server_pid:
            self.server_died()
            self._server_pid, self.server_pidfd = pid, os.pidfd_open(pid)


@contextmanager
def _bare_main() -> Iterator[None]:
    """Hide the main module: multiprocessing would import it, the whole command line, again in every child."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
