"""Detections that came to a judge which does not serve their camera: what is to be done with them.

Pure.  They are published anew, to whichever judge the camera is bound to now.  The broker cannot tell whether anybody
listens there: a queue that was left behind gives them back after half a minute.  So they carry how often they were sent
home; after a few times they wait longer, and in the end they are put aside, where a person sees them.

A camera that left is bound here for some minutes more.  Of what comes in that time only this node's own clips are sent
home: whoever captures it now was bound before it announced its first.  They come back here as well as to their judge,
so after a few times, which give that one time to be bound, they are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

#: Header that says how often the message was sent home.
HOPS_HEADER: Final = "hops"
#: How often detections are sent home.  With the pauses that is 40 minutes: what a judge that is away for longer left
#: unjudged is put aside by the judges of other nodes.
HOPS_MAX: Final = 10
#: How often they are sent home without a pause: their judge was only restarted.
HOPS_AT_ONCE: Final = 3
#: Pause before each time after that, seconds: what circulates costs two messages in so long.
PAUSE_S: Final = 300.0
#: Pause while no queue is bound for the camera or that queue is full, seconds, and how many of them: an hour.
UNROUTABLE_S: Final = 30.0
UNROUTABLE_MAX: Final = 120

#: How often the clips of a camera that left are sent home, and the pause before each time but the first, seconds: a
#: node that is given a camera binds it within seconds, and waits `reorder.HANDOVER_WAIT_S` for these.
LEFT_HOPS_MAX: Final = 3
LEFT_PAUSE_S: Final = 5.0

#: Why a message was put aside, for whoever finds it.
SENT_TOO_OFTEN: Final = f"sent home {HOPS_MAX} times and taken by no judge there: a queue that nobody serves is bound"
SERVED_BY_NOBODY: Final = "no judge's queue took it for an hour"


class Step(Enum):
    """What to do now."""

    SEND = "send"
    PAUSE = "pause"
    PUT_ASIDE = "put aside"
    REFUSE = "refuse"


def hops_of(headers: Mapping[str, str]) -> int:
    """How often this message was sent home."""
    text = headers.get(HOPS_HEADER, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def step(hops: int, attempt: int) -> Step:
    """The next step for a message that was sent home `hops` times; `attempt` as the bus counts, 1 before any pause."""
    if hops >= HOPS_MAX:
        return Step.PUT_ASIDE
    return Step.PAUSE if hops >= HOPS_AT_ONCE and attempt == 1 else Step.SEND


def step_of_left(hops: int, attempt: int, *, is_own: bool) -> Step:
    """The next step for a message in the judge's own queue whose camera left; `is_own`: captured on this node."""
    if not is_own or hops >= LEFT_HOPS_MAX:
        return Step.REFUSE
    return Step.PAUSE if hops and attempt == 1 else Step.SEND
