"""What a judge put off is counted until it is back in the judge's queue."""

from __future__ import annotations

from typing import Any

from nodeagent.contract.codec import Message
from nodeagent.infra.bus.port import Delivery
from nodeagent.judge.hand_on import HandOn
from nodeagent.judge.late import HOPS_HEADER, LEFT_PAUSE_S
from nodeagent.judge.put_off import PutOff
from tests.support.fake_processes import TurnedClock

OWN = "detections.n1.0"


def test_each_is_counted_until_its_time_has_come() -> None:
    put_off = PutOff()
    for due_s in (30.0, 5.0, 5.0, 300.0):
        put_off.note(due_s)
    assert [put_off.count(now_s) for now_s in (4.9, 5.0, 29.9, 30.0, 300.0)] == [4, 2, 2, 1, 0]


class Cell(dict[str, int]):
    """The board's cell, which outlives the process."""

    def set(self, counter: str, value: int) -> None:
        self[counter] = value

    def get(self, counter: str, default: Any = 0) -> int:
        return super().get(counter, default)


class Bus:
    """Puts off whatever it is given."""

    def later(self, _delivery: Delivery, _delay_s: float) -> None:
        pass


def make_hand_on(cell: Cell, clock: TurnedClock) -> HandOn:
    return HandOn(Bus(), OWN, cell, lambda action, _what: action(), clock)  # type: ignore[arg-type]


def test_the_board_tells_what_comes_back_to_its_own_queue_also_after_a_kill() -> None:
    """Else a drained node is called done, and switched off, while its last clips wait to be sent home once more."""
    cell, clock = Cell(), TurnedClock()
    hand_on = make_hand_on(cell, clock)
    message = Message(b"", {HOPS_HEADER: "1"})
    for queue in (OWN, "detections.late"):
        hand_on.refuse_or_send(Delivery(queue, "gate", message, 1, 1), is_own=True)
    assert cell["put_off"] == 1
    clock.now_s += LEFT_PAUSE_S - 1
    again = make_hand_on(cell, clock)
    again.show()
    assert cell["put_off"] == 1
    hand_on.show()
    clock.now_s += 1
    hand_on.show()
    assert cell["put_off"] == 0
    clock.now_s += LEFT_PAUSE_S
    cell["put_off"] = 1
    again.show()
    assert cell["put_off"] == 0
