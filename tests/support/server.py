"""What private test servers share: a folder, a process group, and a guard that lets nothing outlive its starter."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import TypeVar

#: Seconds that a server may take to listen on a machine that is busy with other things.
START_S = 90.0
#: Seconds between looks at a starting server.
POLL_S = 0.02

#: Seconds that killed processes may take to be gone: a large one gives back its memory first.
GONE_S = 20.0

#: The guard: learns process groups and folders, one a line, and clears them away when its input ends.
_GUARD = """
import os, shutil, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
groups, folders, spaces = {}, set(), set()
def born(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[19]
    except OSError:
        return None
for line in sys.stdin:
    word, value = line.rstrip("\\n").split(" ", 1)
    if word == "group": groups[int(value)] = born(int(value))
    elif word == "ended": groups.pop(int(value), None)
    elif word == "folder": folders.add(value)
    elif word == "removed": folders.discard(value)
    elif word == "space": spaces.add(value)
    elif word == "left": spaces.discard(value)
for pid, start in groups.items():
    if start is not None and born(pid) == start:
        try: os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError: pass
for folder in folders:
    shutil.rmtree(folder, ignore_errors=True)
for space in spaces:
    subprocess.run(["ip", "netns", "delete", space], capture_output=True)
"""

#: Where servers listen when nothing else is said.
LOOPBACK = "127.0.0.1"

S = TypeVar("S", bound="Server")


class MissingServer(Exception):
    """The machine has no such server; names the packages that bring it."""


class _Guard:
    """The guard process of this process, started with the first server."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def tell(self, word: str, value: object) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _GUARD], stdin=subprocess.PIPE, text=True, start_new_session=True
            )
            atexit.register(self.close)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{word} {value}\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """Have it clear away what is left, and wait for it."""
        if self._process is not None:
            process, self._process = self._process, None
            process.communicate()


GUARD = _Guard()


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int, address: str = LOOPBACK) -> bool:
    """Whether somebody accepts connections on this port."""
    try:
        socket.create_connection((address, port), 0.5).close()
    except OSError:
        return False
    return True


class Server:
    """What the three servers share: a folder, a process in its own group, start, stop and kill."""

    #: Name of the folder and in messages.
    name = "server"
    #: What must be installed, and the packages that bring it.
    program = Path()
    packages = ""

    def __init__(self, address: str = LOOPBACK) -> None:
        """`address`: of this machine, to listen on."""
        self.address = address
        if not self.program.exists():
            raise MissingServer(f"{self.name}: {self.program} is not installed; apt-get install {self.packages}")
        # Unix sockets allow 107 bytes of path, so the folder is right under the system's own.
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name[:2]}-"))
        GUARD.tell("folder", self.folder)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self: S) -> S:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _exc: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None

    def command(self) -> list[str]:
        """Program and arguments."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Its environment."""
        return dict(os.environ)

    def answers(self) -> bool:
        """Whether it is ready for clients."""
        return listens(self.port, self.address)

    def start(self) -> None:
        """Start on the same port and data as before; returns when it answers; harmless when it runs."""
        if self.running:
            return
        self.process = self.spawn(self.command())
        self._wait_ready(self.process)

    def spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        """A process of this server in a group of its own, known to the guard."""
        with (self.folder / "output").open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        GUARD.tell("group", process.pid)
        return process

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_S
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start:\n{self.output_tail()}")
            time.sleep(POLL_S)

    def output_tail(self) -> str:
        """The end of what it wrote, for messages."""
        output = self.folder / "output"
        return output.read_text(errors="replace")[-2000:] if output.exists() else ""

    def stop(self, timeout_s: float = 30.0) -> None:
        """End it as an operator would; harmless when it is gone."""
        if self.process is not None and self.running:
            self.process.terminate()
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill9()
        self._forget()

    def kill9(self) -> None:
        """End it as a power cut would; harmless when it is gone."""
        if self.process is not None and self.running:
            end_group(self.process)
        self._forget()

    def freeze(self) -> None:
        """Stop it from running, so that it holds its connections and answers nothing; `thaw` undoes it."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run on after `freeze`."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGCONT)

    def _forget(self) -> None:
        if self.process is not None:
            GUARD.tell("ended", self.process.pid)
            self.process = None

    def remove(self) -> None:
        """End it and delete its folder."""
        self.kill9()
        shutil.rmtree(self.folder, ignore_errors=True)
        GUARD.tell("removed", self.folder)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that `Server.spawn` started, and wait until nothing of its group is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + GONE_S
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(POLL_S)
