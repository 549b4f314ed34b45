"""Exit codes of every command, the same for all of them.  `docs/operations.md` explains them."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command tells the shell."""

    #: Done.  `status`, `cluster`: all is well.  `run`: stopped and drained.
    OK = 0
    #: `status`, `cluster`: problems exist.  `run`: not every child drained in time.  Others: not done, the message says
    #: why.
    PROBLEMS = 1
    #: The configuration or the command line is wrong; every fault was printed.
    USAGE = 2
    #: No agent is running on this state folder; `cluster`, `registry`: no registry answers.
    NOT_RUNNING = 3
    #: `run`: another agent works on this state folder; `registry serve`: another registry.
    ALREADY_RUNNING = 4
