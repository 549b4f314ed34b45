"""One step in a table of phases: for each phase, the events that it knows and the phase after each.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from nodeagent.contract.errors import AgentError

_Phase = TypeVar("_Phase", bound=Enum)
_Event = TypeVar("_Event", bound=Enum)


class IllegalStep(AgentError):
    """An event that the phase does not know; nothing was changed."""


def step(table: Mapping[_Phase, Mapping[_Event, _Phase]], phase: _Phase, event: _Event) -> _Phase:
    """The phase after an event.

    Raises:
        IllegalStep: the table has no such row.
    """
    try:
        return table[phase][event]
    except KeyError:
        raise IllegalStep(f"{event.value} while {phase.value}") from None
