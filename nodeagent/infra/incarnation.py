"""One life of an agent: its lock on the state folder, and its folder on tmpfs with board and rings.

Promises: at most one agent works on a state folder, and after a kill -9 of everything the next start leaves nothing of
the old life behind, neither processes nor memory.  Every process of a life holds a shared `flock` on the life's lock
file; who still holds one when the agent is known to be dead is an orphan and is ended.  The easy mistake: to trust a
pid from a file.  Orphans are found by the lock file that they have open, through a pidfd, so a reused pid is harmless.

    <state_dir>/agent.lock                            exclusive flock of the agent; "pid life" as text
    /dev/shm/nodeagent/<hash of state_dir>/<life>/    lock, board, rings/
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nodeagent.contract.errors import AgentError, Unavailable

log = logging.getLogger(__name__)

#: Environment variable that replaces SHM_BASE; for tests and machines whose tmpfs lies elsewhere.
SHM_VARIABLE = "NODEAGENT_SHM_DIR"
SHM_BASE = Path("/dev/shm/nodeagent")  # noqa: S108  (shared memory; our folder in it is checked for its owner)
#: Name of the agent's lock in the state folder, and of a life's lock, board and rings in its folder.
AGENT_LOCK = "agent.lock"
LIFE_LOCK = "lock"
BOARD = "board"
RINGS = "rings"
#: An agent that is just ending, or a `status` that is just looking, holds the lock for a moment: seconds to wait.
LOCK_WAIT_S = 1.0
#: Killed processes are gone within milliseconds; one in an uninterruptible read of a dead disk is not, seconds.
SWEEP_WAIT_S = 10.0
#: Pause between two looks at a lock, seconds.
LOOK_S = 0.02


class AlreadyRunning(AgentError):
    """Another agent works on this state folder.  The message names the folder and its pid."""


@dataclass(slots=True)
class AgentLock:
    """The right to work on a state folder; ends with the process at the latest."""

    path: Path
    fd: int

    def note(self, life: str) -> None:
        """Write who holds the lock, for whoever is refused and for `live_board_path`."""
        body = f"{os.getpid()} {life}\n".encode()
        os.pwrite(self.fd, body, 0)
        os.ftruncate(self.fd, len(body))

    def release(self) -> None:
        """Let the next agent start."""
        os.close(self.fd)


@dataclass(slots=True)
class Incarnation:
    """The folder of one life on tmpfs.

    Attributes:
        path: the folder; `board` and `rings` lie in it.
        lock_fd: our shared lock.
    """

    path: Path
    lock_fd: int

    @property
    def board_path(self) -> Path:
        """Where the status board lies."""
        return self.path / BOARD

    def remove(self) -> None:
        """Leave nothing behind.  The caller has ended all children."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock_fd)
        # Another state folder's life, or another life of this one, keeps its parent; that is no fault.
        for folder in (self.path.parent, self.path.parent.parent):
            try:
                folder.rmdir()
            except OSError:
                return


def lock_state_dir(state_dir: Path) -> AgentLock:
    """Take the state folder, making it when it is missing.

    Raises:
        AlreadyRunning: another agent holds it.
        Unavailable: the folder cannot be made or written.
    """
    path = state_dir / AGENT_LOCK
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as exc:
        raise Unavailable(f"state folder {state_dir}: {exc.strerror}") from exc
    if not _flock_within(fd, fcntl.LOCK_EX, LOCK_WAIT_S):
        holder = os.pread(fd, 64, 0).split()
        os.close(fd)
        pid = holder[0].decode("ascii", "replace") if holder else "unknown"
        raise AlreadyRunning(f"another agent works on {state_dir}: pid {pid}")
    lock = AgentLock(path, fd)
    lock.note("")
    return lock


def start_life(lock: AgentLock) -> Incarnation:
    """End what is left of older lives and make the folder of a new one.

    The order: sweep, folder, shared lock, note.  A kill in between leaves a folder without a board, which the next
    start sweeps, and a note that leads nowhere, which `live_board_path` takes for "not up yet".

    Raises:
        Unavailable: no tmpfs, no space on it, or its folder belongs to another user.
    """
    home = _home(lock.path.parent)
    try:
        _make_private(home)
        sweep(home)
        path = home / f"{time.time_ns():x}-{os.getpid()}"
        path.mkdir(mode=0o700)
        (path / RINGS).mkdir(mode=0o700)
        (path / LIFE_LOCK).touch(mode=0o600)
        return Incarnation(path, hold_life(path))
    except OSError as exc:
        raise Unavailable(f"shared memory {home}: {exc.strerror}") from exc


def hold_life(memory_dir: Path) -> int:
    """A shared lock on a life; it lasts until the returned descriptor is closed, at the latest with the process.

    Raises:
        Unavailable: the life is over: its folder is gone or being swept.
    """
    try:
        fd = os.open(memory_dir / LIFE_LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise Unavailable(f"{memory_dir}: {exc.strerror}") from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Unavailable(f"{memory_dir}: being swept by the next agent") from None
    return fd


def sweep(home: Path) -> None:
    """End the processes of dead lives and remove their folders.  Only who holds the agent's lock may call this."""
    for life in sorted(path for path in home.iterdir() if path.is_dir()):
        if _end_life(life):
            shutil.rmtree(life, ignore_errors=True)
        else:
            log.error("old life %s is still held and stays", life, extra={"event": "sweep_failed"})


def live_board_path(state_dir: Path) -> Path | None:
    """The status board of the agent that works on this state folder now; None when none does.

    Raises:
        Unavailable: the state folder may not be looked into.
    """
    try:
        fd = os.open(state_dir / AGENT_LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise Unavailable(f"state folder {state_dir}: {exc.strerror}") from exc
    try:
        if _flock_within(fd, fcntl.LOCK_SH, 0.0):
            return None
        note = os.pread(fd, 256, 0).decode("ascii", "replace").split()
    finally:
        os.close(fd)
    if len(note) < 2:
        return None
    board = _home(state_dir) / note[1] / BOARD
    return board if board.exists() else None


def _home(state_dir: Path) -> Path:
    """Folder of all lives of one state folder."""
    digest = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:16]
    return Path(os.environ.get(SHM_VARIABLE) or SHM_BASE) / digest


def _make_private(home: Path) -> None:
    if not home.parent.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        # As /tmp: agents of different users share it, none removes another's folder.
        home.parent.chmod(0o1777)
    home.mkdir(mode=0o700, exist_ok=True)
    info = home.lstat()
    if info.st_uid != os.geteuid() or info.st_mode & 0o077 or home.is_symlink():
        raise Unavailable(f"shared memory {home}: expected a folder that only uid {os.geteuid()} may enter")


def _flock_within(fd: int, how: int, wait_s: float) -> bool:
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(LOOK_S)
        else:
            return True


def _end_life(life: Path) -> bool:
    """Kill whoever holds the life's lock; return whether it is free."""
    try:
        fd = os.open(life / LIFE_LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        until = time.monotonic() + SWEEP_WAIT_S
        # One that was forking while we looked is found in the next round.
        while not _flock_within(fd, fcntl.LOCK_EX, LOOK_S):
            for pid in _holders(os.fstat(fd)):
                _kill_holder(pid, os.fstat(fd))
            if time.monotonic() > until:
                return False
        return True
    finally:
        os.close(fd)


def _holders(lock: os.stat_result) -> Iterator[int]:
    """Other processes that have the lock file open; those of other users cannot be looked into and are none of ours."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _has_open(int(entry.name), lock):
            yield int(entry.name)


def _has_open(pid: int, lock: os.stat_result) -> bool:
    try:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            info = fd.stat()
            if (info.st_dev, info.st_ino) == (lock.st_dev, lock.st_ino):
                return True
    except OSError:
        return False
    return False


def _kill_holder(pid: int, lock: os.stat_result) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Looked at once more behind the pidfd: this is the process that is killed, whatever its number was before.
        if _has_open(pid, lock):
            log.warning("ending process %d of an old life", pid, extra={"event": "orphan_killed"})
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)
