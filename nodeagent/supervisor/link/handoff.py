"""What link and supervisor hand each other: the granted cameras, a nudge that they changed, and words about leaving.

The cameras lie in the state folder, so an agent can start while every registry is away.  The nudge is a named pipe in
the life's folder: it needs nobody at the other end, a link that is killed may come back to it, and it goes with the
life.  A nudge that is lost (link killed between snapshot and nudge) is made up for by its successor, which nudges once
at its start.  That the node leaves, and that nobody takes its cameras then, are files beside it: whoever is started
meanwhile knows it too.
"""

from __future__ import annotations

import os
from pathlib import Path

from nodeagent.contract.errors import DecodeError
from nodeagent.infra.wanted import Wanted, read_wanted

#: Snapshot of the cameras that this node owns, in the state folder (`infra.wanted`, mode 0600); the link writes it.
GRANTED = "granted.json"
#: Names in the life's folder.
PIPE = "link.pipe"
LEAVING = "link.leaving"
NOBODY = "link.nobody"
#: Bytes read at once; how many there are says nothing.
_DRAIN_BYTES = 4096


def read_granted(state_dir: Path) -> Wanted:
    """The granted cameras as they were noted last; an empty set with version 0 when there were none.

    A snapshot that is gone or cannot be read is made up for by what the supervisor noted for its workers.

    Raises:
        DecodeError: neither can be read.
    """
    try:
        found = read_wanted(state_dir / GRANTED)
    except DecodeError:
        found = Wanted(0, ())
    if found.version:
        return found
    served = read_wanted(state_dir / "wanted.json")
    cameras = tuple(camera for camera in served.cameras if camera.camera_id in served.grants)
    return Wanted(served.version if cameras else 0, cameras, served.grants)


class Nudges:
    """The supervisor's end of the pipe."""

    def __init__(self, memory_dir: Path) -> None:
        """Make the pipe.

        Raises:
            OSError: the life's folder cannot be written.
        """
        path = memory_dir / PIPE
        os.mkfifo(path, 0o600)
        # Open for writing too: without a writer the pipe would be readable, at its end, for ever.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def __del__(self) -> None:
        fd = getattr(self, "_fd", -1)
        if fd >= 0:
            os.close(fd)

    def fileno(self) -> int:
        """Readable when there was a nudge."""
        return self._fd

    def drain(self) -> None:
        """Forget all nudges so far; called before the snapshot is read, so that none is lost."""
        try:
            while len(os.read(self._fd, _DRAIN_BYTES)) == _DRAIN_BYTES:
                pass
        except BlockingIOError:
            return


def nudge(memory_dir: Path) -> None:
    """Have the supervisor read the snapshot.

    Raises:
        OSError: there is no pipe: this life has no supervisor that reads one.
    """
    fd = os.open(memory_dir / PIPE, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fd, b"x")
    except BlockingIOError:
        # Full of nudges that nobody has read yet: one more tells nothing.
        return
    finally:
        os.close(fd)


def say_leaving(memory_dir: Path) -> None:
    """Tell the link that this node is about to stop.

    Raises:
        OSError: the life's folder cannot be written.
    """
    (memory_dir / LEAVING).touch(mode=0o600)


def is_leaving(memory_dir: Path) -> bool:
    """Whether this node is about to stop."""
    return (memory_dir / LEAVING).exists()


def say_nobody_takes(memory_dir: Path) -> None:
    """Tell the supervisor, which looks at each turn, that no other node will take our cameras: it need not wait.

    Raises:
        OSError: the life's folder cannot be written.
    """
    (memory_dir / NOBODY).touch(mode=0o600)


def nobody_takes_any(memory_dir: Path) -> bool:
    """Whether the link said that nobody takes our cameras."""
    return (memory_dir / NOBODY).exists()
