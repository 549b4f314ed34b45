"""Events between two threads: in order, bounded, and whoever waits is woken."""

from __future__ import annotations

import threading
import time

from nodeagent.capture.handover import Handover


def test_everything_arrives_once_in_order_whatever_the_pace() -> None:
    events: Handover[int] = Handover(16)

    def give() -> None:
        for number in range(1_000):
            assert events.put(number, timeout_s=20)

    giver = threading.Thread(target=give)
    giver.start()
    assert [events.get(20) for _ in range(1_000)] == list(range(1_000))
    giver.join()
    assert events.get(0) is None


def test_a_full_queue_refuses_after_its_time_and_takes_again_when_there_is_room() -> None:
    events: Handover[int] = Handover(2)
    assert events.put(1, 0)
    assert events.put(2, 0)
    since_s = time.monotonic()
    assert not events.put(3, 0.05)
    assert time.monotonic() - since_s >= 0.05
    assert events.get(0) == 1
    assert events.put(3, 0)
    assert [events.get(0), events.get(0), events.get(0)] == [2, 3, None]


def test_who_waits_is_woken_at_once_or_gives_up_in_time() -> None:
    events: Handover[int] = Handover(2)
    since_s = time.monotonic()
    assert events.get(0.05) is None
    assert time.monotonic() - since_s >= 0.05
    giver = threading.Timer(0.05, lambda: events.put(7, 0))
    giver.start()
    assert events.get(20) == 7
    giver.join()
    assert time.monotonic() - since_s < 15
