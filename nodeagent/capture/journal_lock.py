"""Who may write a camera's journal: its capture, or whoever finishes what a capture of a removed camera left.

A `flock` on a file beside the journal: the kernel drops it with its process, however that ends.  The journal itself
cannot be locked, as it is replaced now and then.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def lock_path(journal: Path) -> Path:
    """The file that is locked."""
    return journal.with_suffix(".lock")


def take_lock(journal: Path) -> int | None:
    """A descriptor that holds the journal until it is closed; None while another process holds it.

    Raises:
        OSError: the state folder cannot be used.
    """
    path = lock_path(journal)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        # The holder before may have removed the name in between: then this is a lock on a file that nobody finds.
        if _has_name(fd, path):
            return fd
        os.close(fd)


def _has_name(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
