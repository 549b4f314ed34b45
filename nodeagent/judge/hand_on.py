"""Deliveries that this judge does not judge: sent to the judge that has their camera, or put aside.

Each is confirmed where it goes before it is settled here, so kill -9 between the two leaves it twice, never nowhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from nodeagent.contract.codec import TYPE_HEADER, Message
from nodeagent.contract.errors import Refused, Unavailable
from nodeagent.infra.board import BoardCell
from nodeagent.infra.bus.port import Bus, Delivery
from nodeagent.infra.bus.topology import DETECTIONS
from nodeagent.infra.clock import Clock
from nodeagent.judge import late
from nodeagent.judge.put_off import PutOff

log = logging.getLogger(__name__)


class Insist(Protocol):
    """Does an action again and again while the bus is away; the second argument says what it is, for the status."""

    def __call__(self, action: Callable[[], None], what: str, /) -> None:
        """Raises Refused when the bus is there and refuses."""
        ...


class HandOn:
    """Hands deliveries on; those that it puts off and that come back to `queue` are counted on the board."""

    def __init__(self, bus: Bus, queue: str, cell: BoardCell, insist: Insist, clock: Clock) -> None:
        self._bus = bus
        self._queue = queue
        self._cell = cell
        self._insist = insist
        self._clock = clock
        self._put_off = PutOff()
        # Of what a killed predecessor put off only the number is known; most of it comes back within this.
        for _ in range(cell.get("put_off")):
            self._put_off.note(clock.monotonic_s() + late.LEFT_PAUSE_S)

    def show(self) -> None:
        """Tell the board how many are put off now."""
        self._cell.set("put_off", self._put_off.count(self._clock.monotonic_s()))

    def put_aside(self, delivery: Delivery, why: str) -> None:
        """Into the dead-letter queue, with the reason."""
        log.warning("judge: message of %s put aside: %s", delivery.key, why, extra={"event": "message_put_aside"})
        self._insist(lambda: self._bury(delivery, why), "put aside")
        self._cell.add("refused")

    def _bury(self, delivery: Delivery, why: str) -> None:
        try:
            self._bus.dead(delivery, why)
        except Unavailable:
            # A full dead-letter queue must not hold up the cameras; a broker that is away refuses this too.
            self._later(delivery, late.PAUSE_S)

    def _later(self, delivery: Delivery, delay_s: float) -> None:
        self._bus.later(delivery, delay_s)
        if delivery.queue == self._queue:
            self._put_off.note(self._clock.monotonic_s() + delay_s)
            self.show()

    def send_home(self, delivery: Delivery) -> None:
        """To whichever judge its camera is bound to now."""
        hops = late.hops_of(delivery.message.headers)
        match late.step(hops, delivery.attempt):
            case late.Step.PUT_ASIDE:
                self.put_aside(delivery, late.SENT_TOO_OFTEN)
            case late.Step.PAUSE:
                self._insist(lambda: self._later(delivery, late.PAUSE_S), "put off detections")
            case late.Step.SEND:
                self._publish(delivery, hops + 1)

    def refuse_or_send(self, delivery: Delivery, *, is_own: bool) -> None:
        """What came to this judge's own queue though its camera left; `is_own`: it was captured on this node."""
        hops = late.hops_of(delivery.message.headers)
        match late.step_of_left(hops, delivery.attempt, is_own=is_own):
            case late.Step.REFUSE:
                self._bus.ack(delivery)
                self._cell.add("refused")
            case late.Step.PAUSE:
                self._insist(lambda: self._later(delivery, late.LEFT_PAUSE_S), "put off detections")
            case _:
                self._publish(delivery, hops + 1)

    def _publish(self, delivery: Delivery, hops: int) -> None:
        kind = delivery.message.headers.get(TYPE_HEADER, "")
        message = Message(delivery.message.body, {TYPE_HEADER: kind, late.HOPS_HEADER: str(hops)})
        try:
            self._insist(lambda: self._bus.publish(DETECTIONS, delivery.key, message), "send detections home")
        except Refused as exc:
            # Nobody serves the camera at the moment, or its queue is full.
            if delivery.attempt > late.UNROUTABLE_MAX:
                self.put_aside(delivery, f"{late.SERVED_BY_NOBODY}: {exc}")
            else:
                self._insist(lambda: self._later(delivery, late.UNROUTABLE_S), "put off detections")
            return
        self._bus.ack(delivery)
