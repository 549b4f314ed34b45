"""Phases of one supervised child.

Pure: knows no process, clock or log.  Every way a child may change phase is a row of NEXT; anything that wants a new
way adds a row, never an `if` elsewhere.
"""

from __future__ import annotations

from enum import StrEnum

from nodeagent.contract.report import Phase


class Event(StrEnum):
    """What may happen to a child."""

    #: The supervisor forks it.
    SPAWN = "spawn"
    #: It said that it is able to work.
    READY = "ready"
    #: The supervisor tells it to stop.
    STOP = "stop"
    #: It ended, by itself or by a signal.
    ENDED = "ended"
    #: It ended and said that a restart cannot mend it.
    GAVE_UP = "gave_up"


NEXT: dict[Phase, dict[Event, Phase]] = {
    Phase.EXITED: {Event.SPAWN: Phase.STARTING, Event.STOP: Phase.EXITED},
    Phase.STARTING: {
        Event.READY: Phase.RUNNING,
        Event.STOP: Phase.STOPPING,
        Event.ENDED: Phase.BACKOFF,
        Event.GAVE_UP: Phase.FATAL,
    },
    Phase.RUNNING: {Event.STOP: Phase.STOPPING, Event.ENDED: Phase.BACKOFF, Event.GAVE_UP: Phase.FATAL},
    Phase.BACKOFF: {Event.SPAWN: Phase.STARTING, Event.STOP: Phase.EXITED},
    Phase.FATAL: {Event.SPAWN: Phase.STARTING, Event.STOP: Phase.EXITED},
    Phase.STOPPING: {Event.STOP: Phase.STOPPING, Event.ENDED: Phase.EXITED, Event.GAVE_UP: Phase.EXITED},
}

#: Phases in which there is a process.
ALIVE = frozenset({Phase.STARTING, Phase.RUNNING, Phase.STOPPING})
