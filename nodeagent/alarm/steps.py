"""The side effects of an alarm's way, named: what a crash test enumerates.

Order, and what kill -9 right after each step leaves behind.  The message is unacknowledged until the last but one, so
every line ends in "it comes again, and":
"""

from __future__ import annotations

from typing import Final, Protocol

#: Step by step: name and what happens when the message comes again.
STEPS: Final[dict[str, str]] = {
    "recorded": "the row is found by its key and amended: nothing doubles",
    "pinned": "the links are there already",
    "waiting": "the state is there already",
    "cut_claimed": "this worker owns the claim again; another one waits until it expires; one start is counted",
    "replay_written": "the unfinished file is overwritten",
    "replay_renamed": "the replay is cut again and replaces an equal one",
    "snapshot_written": "as above",
    "replay_ready": "the row says so: nothing is cut again",
    "push_claimed": "as `cut_claimed`",
    "push_sent": "the target gets the same bytes with the same key again: only it can know that it had them",
    "attempt_kept": "a target that accepted is not asked again",
    "pushed": "the row is final: only the links are removed",
    "unpinned": "as above; removing nothing is harmless",
    "acked": "nothing comes: it is done",
}


class Checkpoint(Protocol):
    """Called after each step with its name."""

    def __call__(self, step: str) -> None:
        """Go on, or (in a test) do not."""
        ...


def go_on(step: str) -> None:
    """The Checkpoint of production: none."""
