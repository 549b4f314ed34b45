"""Which clip goes next."""

from __future__ import annotations

from nodeagent.contract.clip import ClipId
from nodeagent.contract.codec import Message, encode_clip_task
from nodeagent.inference.intake import CHOICE_MAX, Intake, Taken
from nodeagent.inference.work import Alien
from tests.support.inference import EPOCH_NS, NODE, MemoryBus, bare_task


def offer(bus: MemoryBus, number: int, node_id: str = NODE) -> None:
    clip = ClipId(camera_id="cam1", epoch=1, start_ns=EPOCH_NS + number)
    bus.offer(encode_clip_task(bare_task(clip, []).model_copy(update={"node_id": node_id})))


def numbers(intake: Intake) -> list[int]:
    found = []
    while isinstance(taken := intake.next(0.0), Taken):
        found.append(taken.task.start_ns - EPOCH_NS)
    return found


def test_the_oldest_goes_first_and_other_nodes_last() -> None:
    bus = MemoryBus()
    offer(bus, 1, "n2")
    for number in (7, 5, 6):
        offer(bus, number)
    offer(bus, 0, "n2")
    assert numbers(Intake(NODE, bus)) == [5, 6, 7, 0, 1]


def test_what_comes_meanwhile_is_chosen_among() -> None:
    bus = MemoryBus()
    intake = Intake(NODE, bus)
    offer(bus, 5)
    offer(bus, 6)
    assert isinstance(first := intake.next(0.0), Taken)
    assert first.task.start_ns == EPOCH_NS + 5
    offer(bus, 2)
    assert numbers(intake) == [2, 6]


def test_no_more_are_held_than_are_chosen_among() -> None:
    bus = MemoryBus()
    for number in range(CHOICE_MAX + 5):
        offer(bus, number)
    assert Intake(NODE, bus).next(0.0) is not None
    assert bus.waiting.qsize() == 5


def test_an_alien_message_does_not_wait_for_its_turn() -> None:
    bus = MemoryBus()
    intake = Intake(NODE, bus)
    offer(bus, 1)
    bus.offer(Message(b"hello", {"type": "greeting"}))
    alien = intake.next(0.0)
    assert isinstance(alien, Alien)
    assert "clip_task" in alien.reason
    assert numbers(intake) == [1]
    assert intake.next(0.0) is None
