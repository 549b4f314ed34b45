"""Settles the alarms' messages, and keeps what the broker could not confirm until it can.

A job that was taken up from its row alone has no message: settling it is nothing, and its row is found again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from nodeagent.contract.errors import AgentError
from nodeagent.infra.bus.port import Bus, Delivery

log = logging.getLogger(__name__)

#: Longest reason that is put aside with a message, characters: it travels in a header.
REASON_MAX = 200


class Settler:
    """Settlements of one bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._owed: deque[Callable[[], None]] = deque()

    @property
    def owed(self) -> int:
        """Settlements that are still to be confirmed."""
        return len(self._owed)

    def ack(self, delivery: Delivery | None) -> None:
        """It is done."""
        if delivery is not None:
            self._bus.ack(delivery)

    def later(self, delivery: Delivery | None, delay_s: float) -> None:
        """Have it come again."""
        if delivery is not None:
            self._settle(partial(self._bus.later, delivery, delay_s))

    def dead(self, delivery: Delivery | None, reason: str) -> None:
        """Put it aside for a person."""
        if delivery is not None:
            self._settle(partial(self._bus.dead, delivery, reason[:REASON_MAX]))

    def retry(self) -> None:
        """Try again what is owed."""
        for _ in range(len(self._owed)):
            self._settle(self._owed.popleft(), again=True)

    def _settle(self, settle: Callable[[], None], again: bool = False) -> None:
        try:
            settle()
        except AgentError as exc:
            if not again:
                log.warning("message not settled yet: %s", exc, extra={"event": "settle_failed"})
            self._owed.append(settle)
