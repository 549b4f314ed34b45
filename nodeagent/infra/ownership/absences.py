"""How long cameras have been without a holder of their key, as one agent sees it.

Pure.  The easy mistake: a key that ran out while Redis was away says nothing, because nobody could renew it.  So time
counts only while Redis answers, and begins anew after each time that it did not.
"""

from __future__ import annotations

from collections.abc import Mapping

from nodeagent.contract.ids import CameraId
from nodeagent.contract.ownership import Owner

#: How long a key must have been gone before its camera goes back to the pool, seconds: five renewals.
GONE_S = 10.0


class Absences:
    """Since when keys have been gone."""

    def __init__(self) -> None:
        self._since_s: dict[tuple[CameraId, Owner], float] = {}

    def look(self, gone: Mapping[CameraId, Owner], now_s: float) -> dict[CameraId, Owner]:
        """Take in which owned cameras have no holder now, by their owner; returns those gone for GONE_S.

        `now_s` is monotonic, in seconds.
        """
        self._since_s = {entry: self._since_s.get(entry, now_s) for entry in gone.items()}
        return {camera_id: owner for (camera_id, owner), since_s in self._since_s.items() if now_s - since_s >= GONE_S}

    def reset(self) -> None:
        """Redis did not answer: begin anew."""
        self._since_s.clear()
