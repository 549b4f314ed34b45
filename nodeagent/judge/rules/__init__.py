"""Kinds of rules: one file each behind `port.Kind`, and the table that names them."""

from __future__ import annotations

from typing import Final

from nodeagent.judge.rules.intrusion import Intrusion
from nodeagent.judge.rules.loitering import Loitering
from nodeagent.judge.rules.port import KindFactory

#: By the `kind` of the rule's model.  A test asserts that every rule of the contract has one.
KINDS: Final[dict[str, KindFactory]] = {"intrusion": Intrusion, "loitering": Loitering}
