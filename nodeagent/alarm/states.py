"""States of an alarm, as a table.

Pure.  Every way a row may change its state is a line of NEXT; the store changes a state only from one that NEXT names,
in one statement, so that a worker that lost its claim cannot turn a row back.
"""

from __future__ import annotations

from enum import StrEnum

from nodeagent.infra.alarm_records import AlarmState


class Event(StrEnum):
    """What may happen to an alarm."""

    #: Its clips were pinned and the rest is waited for.
    WAIT = "wait"
    #: Replay and snapshot are on disk, or it is sure that there is nothing to cut.
    CUT = "cut"
    #: The last target accepted it.
    ACCEPTED = "accepted"
    #: There is no target.
    NOBODY = "nobody"
    #: Its processing killed five workers.
    GIVE_UP = "give_up"


_S = AlarmState
NEXT: dict[AlarmState, dict[Event, AlarmState]] = {
    _S.RECEIVED: {Event.WAIT: _S.WAITING, Event.CUT: _S.REPLAY_READY, Event.GIVE_UP: _S.QUARANTINED},
    _S.WAITING: {Event.WAIT: _S.WAITING, Event.CUT: _S.REPLAY_READY, Event.GIVE_UP: _S.QUARANTINED},
    _S.REPLAY_READY: {Event.ACCEPTED: _S.PUSHED, Event.NOBODY: _S.RECORDED, Event.GIVE_UP: _S.QUARANTINED},
    _S.PUSHED: {},
    _S.RECORDED: {},
    _S.QUARANTINED: {},
}

#: States in which nothing more is to be done.
FINAL = frozenset(state for state, ways in NEXT.items() if not ways)
#: Final states in which all was done.
DONE = FINAL - {AlarmState.QUARANTINED}
#: States in which something is still to be done.
OPEN = frozenset(NEXT) - FINAL


def sources(event: Event) -> dict[AlarmState, AlarmState]:
    """The states in which `event` may happen, and where it leads from each."""
    return {state: ways[event] for state, ways in NEXT.items() if event in ways}
