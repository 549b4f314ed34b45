"""Threads that write to the pool's disks, so that a disk that hangs holds up its own thread and nothing else.

A disk has one thread per user, made when it is first needed; jobs are done in their order.  A thread that hangs in the
kernel cannot be ended: it is left where it is, its disk is passed over until it comes back, and the process does not
wait for it when it ends.  So there are never more such threads than disks.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Generic, TypeVar

from nodeagent.contract.errors import StorageUnavailable
from nodeagent.infra.clock import Clock, SystemClock
from nodeagent.infra.files import sync_file

log = logging.getLogger(__name__)

#: Work that a disk has not done after this long, seconds, shows that it stalls: less than a clip, so that its cameras
#: go on elsewhere within one, and more than a healthy disk takes for a sync under full load.
STALL_S = 3.0

T = TypeVar("T")


class DiskStalled(StorageUnavailable):
    """The disk has not done what it was asked for a while; it may do so yet."""


class Job(Generic[T]):
    """One piece of work for a disk, and what came of it.

    Attributes:
        asked_s: when it was asked for, monotonic seconds.
    """

    __slots__ = ("_done", "_error", "_result", "_work", "asked_s")

    def __init__(self, work: Callable[[], T], asked_s: float) -> None:
        self._work = work
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._result: list[T] = []
        self.asked_s = asked_s

    def run(self) -> None:
        """Do it; its error goes to whoever waits."""
        try:
            self._result.append(self._work())
        except OSError as exc:
            self._error = exc
        except Exception as exc:
            if not isinstance(exc, StorageUnavailable):
                log.exception("work for a disk", extra={"event": "disk_work_failed"})
            self._error = exc
        self._done.set()

    def result(self, timeout_s: float) -> T:
        """What the work returned.

        Raises:
            DiskStalled: it is not done after `timeout_s`.
            OSError, StorageUnavailable: what the work raised.
        """
        if not self._done.wait(timeout_s):
            raise DiskStalled(f"no answer for {timeout_s:.1f} s")
        if self._error is not None:
            raise self._error
        return self._result[0]


class Hand:
    """The thread of one disk.

    Attributes:
        disk: the disk's folder.
        litter: files that were to be removed and could not be; the next clip that begins there removes them.
    """

    def __init__(self, disk: Path, clock: Clock) -> None:
        self.disk = disk
        self.litter: set[Path] = set()
        self._clock = clock
        #: All jobs that are not done, in their order; the queue only wakes the thread.
        self._open: deque[Job[object]] = deque()
        self._asked: SimpleQueue[Job[object]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def ask(self, work: Callable[[], T]) -> Job[T]:
        """Have something done after all that was asked before."""
        job = Job(work, self._clock.monotonic_s())
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=f"disk {self.disk}", daemon=True)
            self._thread.start()
        self._open.append(job)  # type: ignore[arg-type]
        self._asked.put(job)  # type: ignore[arg-type]
        return job

    @property
    def waits_s(self) -> float:
        """For how long the oldest of its jobs has been waiting to be done, seconds; 0 when there is none."""
        try:
            return self._clock.monotonic_s() - self._open[0].asked_s
        except IndexError:
            return 0.0

    @property
    def stalls(self) -> bool:
        """Whether its disk does not answer."""
        return bool(self._open) and self.waits_s >= STALL_S

    def _serve(self) -> None:
        while True:
            self._asked.get().run()
            self._open.popleft()


class Hands:
    """The threads of all disks that one process writes to."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock if clock is not None else SystemClock()
        self._hands: dict[Path, Hand] = {}

    def of(self, disk: Path) -> Hand:
        """The thread of this disk."""
        if disk not in self._hands:
            self._hands[disk] = Hand(disk, self._clock)
        return self._hands[disk]

    def __iter__(self) -> Iterator[Hand]:
        return iter(tuple(self._hands.values()))

    def holding(self, path: Path) -> Hand | None:
        """The thread of the disk on which this path lies; None when nothing was written there yet."""
        found = (disk for disk in self._hands if path.is_relative_to(disk))
        longest = max(found, key=lambda disk: len(disk.parts), default=None)
        return self._hands[longest] if longest is not None else None


class Copy:
    """The file of one clip on one disk, as its thread writes it.

    Attributes:
        path: the file.
        error: the first thing that the disk refused; nothing is written after it.
        written: bytes that the disk has taken.
        synced: whether the file is complete and synced.
    """

    def __init__(self, hand: Hand, path: Path) -> None:
        """Make the file, in the disk's thread."""
        self.hand = hand
        self.path = path
        self.error: OSError | None = None
        self.written = 0
        self.synced = False
        self._dropped = False
        self._fd = -1
        hand.ask(lambda: self._try(self._open))

    def write(self, chunk: bytes) -> None:
        """Append these bytes."""
        self.hand.ask(lambda: self._try(lambda: self._write(chunk)))

    def sync(self) -> Job[None]:
        """Complete the file."""
        return self.hand.ask(lambda: self._try(self._sync))

    def leave(self) -> Job[None]:
        """Write what was asked so far and let go of the file as it is."""
        return self.hand.ask(self._close)

    def drop(self) -> None:
        """Write no more, and remove the file: when the disk comes to it, if it does not answer now."""
        self._dropped = True
        self.hand.ask(self._remove)

    def _try(self, step: Callable[[], None]) -> None:
        if self.error is not None or self._dropped:
            return
        try:
            step()
        except OSError as exc:
            self.error = exc

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        # A disk that takes a file is there again.
        while self.hand.litter:
            self.hand.litter.pop().unlink(missing_ok=True)

    def _write(self, chunk: bytes) -> None:
        left = memoryview(chunk)
        while left:
            left = left[os.write(self._fd, left) :]
        self.written += len(chunk)

    def _sync(self) -> None:
        sync_file(self._fd)
        if not os.path.samestat(os.fstat(self._fd), os.stat(self.path)):
            # Unmounted while in use: the file is complete where nobody finds it.
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), str(self.path))
        self._close()
        self.synced = True

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _remove(self) -> None:
        made = self._fd >= 0
        self._close()
        try:
            self.path.unlink()
        except FileNotFoundError:
            if made:
                # Unmounted: it comes back with its disk.
                self.hand.litter.add(self.path)
        except OSError:
            self.hand.litter.add(self.path)
