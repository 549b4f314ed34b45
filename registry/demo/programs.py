"""The programs of the demo: started by their command lines, killed with all of their processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from nodeagent.contract.errors import Unavailable

#: A command that runs to its end waits for nothing but the database, seconds.
COMMAND_S = 60.0
#: What ends in order has so many seconds at the end of the demo before it is killed.
STOP_S = 15.0


class Program:
    """One registry or agent in a session of its own, so that a signal to its group reaches all of its processes."""

    def __init__(self, name: str, arguments: tuple[str, ...], log_path: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log_path = log_path
        self._arguments = (sys.executable, "-m", *arguments)
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def ended_by_itself(self) -> bool:
        """Whether it was started, and is gone although nobody killed it."""
        return self._process is not None and self._process.poll() is not None

    def start(self) -> None:
        """Start it; returns at once.

        Raises:
            Unavailable: its log cannot be written.
        """
        try:
            with self.log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    self._arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    start_new_session=True,
                )
        except OSError as exc:
            raise Unavailable(f"{self.name} cannot be started: {exc}") from exc

    def kill(self) -> None:
        """Kill -9 of all of its processes at once."""
        if self._process is None:
            return
        # Gone: it ended by itself a moment ago.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def ask_to_stop(self) -> None:
        """TERM to the first process; the others are its own to end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Wait for its end; kill what does not end."""
        if self._process is None:
            return
        try:
            self._process.wait(STOP_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self.kill()


def command(arguments: tuple[str, ...], environment: Mapping[str, str]) -> str:
    """Run a command to its end; returns its standard output.

    Raises:
        Unavailable: it failed; the message is what it said.
    """
    line = [sys.executable, "-m", *arguments]
    try:
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=COMMAND_S, check=False, env=dict(environment)
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{' '.join(arguments[:3])} did not end within {COMMAND_S:.0f} s") from None
    if done.returncode:
        raise Unavailable(f"{' '.join(arguments[:3])}: {done.stderr.strip()}")
    return done.stdout.strip()
