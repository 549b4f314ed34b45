"""File descriptors of the supervisor: it holds three per child, and must not run out of them in the middle of a start.

A hand-over to the fork server that breaks off half-way ends the fork server, and with it every child.  So the limit is
raised at the start of the agent (`infra.open_files`), and a start that would not fit is refused before it begins.
"""

from __future__ import annotations

import os

from nodeagent.contract.errors import Unavailable

#: Descriptors that must be free before a start.  The first one, which makes the fork server, holds nine of them for a
#: moment; what a reload or a log needs beside it comes on top.
SPARE = 12


def expect_spare() -> None:
    """Make sure that a start has the descriptors that it needs.

    Raises:
        Unavailable: it has not.
    """
    opened: list[int] = []
    try:
        for _ in range(SPARE):
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))  # noqa: PERF401  (closed below, however many)
    except OSError as exc:
        raise Unavailable("too many open files: raise LimitNOFILE") from exc
    finally:
        for fd in opened:
            os.close(fd)
