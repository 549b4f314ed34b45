"""Kinds of rules: one file each behind `port.Kind`, and the table that names them."""

from __future__ import annotations

from typing import Final

from nodeagent.judge.rules.abandoned import Abandoned
from nodeagent.judge.rules.absence import Absence
from nodeagent.judge.rules.crowd import Crowd
from nodeagent.judge.rules.fall import Fall
from nodeagent.judge.rules.intrusion import Intrusion
from nodeagent.judge.rules.line_crossing import LineCrossing
from nodeagent.judge.rules.loitering import Loitering
from nodeagent.judge.rules.missing_ppe import MissingPpe
from nodeagent.judge.rules.port import KindFactory
from nodeagent.judge.rules.presence import ClassPresence
from nodeagent.judge.rules.queue import Queue
from nodeagent.judge.rules.speed import Speed
from nodeagent.judge.rules.wrong_direction import WrongDirection

#: By the `kind` of the rule's model.  A test asserts that every rule of the contract has one.
KINDS: Final[dict[str, KindFactory]] = {
    "intrusion": Intrusion,
    "loitering": Loitering,
    "line_crossing": LineCrossing,
    "wrong_direction": WrongDirection,
    "crowd": Crowd,
    "absence": Absence,
    "presence": ClassPresence,
    "queue": Queue,
    "speed": Speed,
    "missing_ppe": MissingPpe,
    "fall": Fall,
    "abandoned": Abandoned,
}
