"""Announcements: nothing leaves the journal unconfirmed, a full queue is passed by, an absent broker is waited for."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.capture import publisher as module
from nodeagent.capture.journal import Closed, Journal
from nodeagent.capture.publisher import Publisher
from nodeagent.contract.clip import ClipTask
from nodeagent.contract.codec import Message, decode_clip_task
from nodeagent.contract.errors import Refused, Unavailable
from nodeagent.infra.bus.topology import CLIPS, CLIPS_SPILL
from nodeagent.infra.clock import SystemClock
from tests.support.eventually import eventually


class ScriptedBus:
    """The publishing side of a bus that refuses or is away as told; the contract suite covers the real ones."""

    def __init__(self) -> None:
        self.refuses: set[str] = set()
        self.away = False
        self.bound = 0
        self.kept: list[tuple[str, int]] = []

    def declare(self) -> None:
        self._check()

    def bind_camera(self, camera_id: str) -> None:
        self._check()
        self.bound += 1

    def publish(self, exchange: str, key: str, message: Message) -> None:
        self._check()
        if exchange in self.refuses:
            raise Refused(f"{exchange} is full")
        self.kept.append((exchange, decode_clip_task(message).clip_seq))

    def _check(self) -> None:
        if self.away:
            raise Unavailable("broker: away")


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(module, "RETRY_LONGEST_S", 0.05)


def add(journal: Journal, number: int) -> None:
    task = ClipTask(
        node_id="n1", camera_id="cam", epoch=5, epoch_started_ns=1000, clip_seq=number, start_ns=1000 + number,
        duration_ns=10, sample_ns=(), sample_width=64, sample_height=48, closed_ns=9,
    )  # fmt: skip
    journal.close_clip(Closed(task, Path("/pool"), 1000 + number))


def started(tmp_path: Path, bus: ScriptedBus) -> tuple[Journal, Publisher]:
    journal = Journal(tmp_path / "cam.jsonl")
    publisher = Publisher(bus, "cam", journal, SystemClock())  # type: ignore[arg-type]
    publisher.start()
    return journal, publisher


def test_clips_are_announced_in_order_and_confirmed(tmp_path: Path) -> None:
    bus = ScriptedBus()
    journal, publisher = started(tmp_path, bus)
    for number in range(3):
        add(journal, number)
    publisher.drain(5.0)
    assert bus.kept == [(CLIPS, 0), (CLIPS, 1), (CLIPS, 2)]
    assert (journal.unconfirmed, publisher.take_announced(), bus.bound) == (0, 3, 1)
    assert publisher.take_announced() == 0


def test_a_full_queue_spills_and_a_full_spill_waits_in_the_journal(tmp_path: Path) -> None:
    bus = ScriptedBus()
    bus.refuses = {CLIPS}
    journal, publisher = started(tmp_path, bus)
    add(journal, 0)
    publisher.wake()
    eventually(lambda: bus.kept == [(CLIPS_SPILL, 0)])
    bus.refuses = {CLIPS, CLIPS_SPILL}
    add(journal, 1)
    publisher.wake()
    eventually(lambda: "full" in publisher.trouble)
    assert journal.unconfirmed == 1
    bus.refuses = set()
    eventually(lambda: bus.kept[-1] == (CLIPS, 1) and not publisher.trouble)
    publisher.drain(1.0)


def test_an_absent_broker_costs_nothing_and_is_bound_again(tmp_path: Path) -> None:
    bus = ScriptedBus()
    journal, publisher = started(tmp_path, bus)
    eventually(lambda: bus.bound == 1)
    bus.away = True
    for number in range(20):
        add(journal, number)
    publisher.wake()
    eventually(lambda: "away" in publisher.trouble)
    publisher.drain(0.2)
    assert journal.unconfirmed == 20
    bus.away = False
    again, second = started(tmp_path, bus)
    eventually(lambda: again.unconfirmed == 0)
    assert [number for _, number in bus.kept] == list(range(20))
    second.drain(1.0)
