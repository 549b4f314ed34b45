"""What the link takes for stale, in whatever order its two threads are answered, and when it is alone."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ownership import LEASE_S, REPORT_S, ReportAnswer
from nodeagent.contract.states import State
from nodeagent.infra.clock import Clock, SystemClock
from nodeagent.infra.registry_api import RegistryRefuses
from nodeagent.supervisor.link.client import Listing
from nodeagent.supervisor.link.talk import Talk
from tests.support.eventually import eventually
from tests.support.fake_processes import TurnedClock


class Registry:
    """Answers a report only when the list was answered."""

    def __init__(self) -> None:
        self.listed = threading.Event()
        self.lists = 0

    def report(self, _report: Any) -> ReportAnswer:
        self.listed.wait(10)
        return ReportAnswer(registry_id="r1", now_ns=SystemClock().wall_ns(), cameras_version=7)

    def cameras(self, _incarnation: str) -> Listing:
        self.lists += 1
        self.listed.set()
        return Listing({}, {})


class Failing:
    """Fails as it is told to; each list fails."""

    def __init__(self) -> None:
        self.fault: Exception | None = None

    def report(self, _report: Any) -> ReportAnswer:
        if self.fault is not None:
            raise self.fault
        return ReportAnswer(registry_id="r1", now_ns=SystemClock().wall_ns(), cameras_version=7)

    def cameras(self, _incarnation: str) -> Listing:
        raise Unavailable("read timed out")


def make_talk(registry: Any, clock: Clock) -> Talk:
    cell = SimpleNamespace(add=lambda *_: None, get=lambda _: 1, set=lambda *_: None)
    reports = SimpleNamespace(make=lambda *_, **__: None)
    return Talk(registry, reports, "a" * 16, cell, clock)  # type: ignore[arg-type]


def test_a_list_that_came_before_any_report_was_answered_is_asked_for_again_and_then_not() -> None:
    registry = Registry()
    talk = make_talk(registry, SystemClock())
    talk.want_list()
    talk.start()
    eventually(lambda: talk.heard().asked_s is not None)
    # A camera may have changed between that list and this answer.
    eventually(lambda: talk.heard().is_stale)
    talk.want_list()
    eventually(lambda: registry.lists == 2 and not talk.heard().is_stale)
    talk.close()


def test_alone_is_only_whose_reports_failed_for_a_lease() -> None:
    """A registry that is restarted, or a list that takes too long, must not end a hand-over."""
    registry, clock = Failing(), TurnedClock()
    talk = make_talk(registry, clock)

    def report_after(seconds: float) -> bool:
        clock.now_s += seconds
        talk._report_turn(clock.now_s)
        return talk.heard().is_alone

    assert not report_after(LEASE_S)
    talk._list_turn(clock.now_s)
    heard = talk.heard()
    assert heard.trouble == (State.REGISTRY_DOWN, "read timed out")
    assert not heard.is_alone
    registry.fault = Unavailable("503")
    assert [report_after(REPORT_S) for _ in range(6)] == [False, False, False, False, True, True]
    registry.fault = None
    assert not report_after(REPORT_S)
    registry.fault = Unavailable("503")
    # Nothing is known of the time in which no report was made.
    assert not report_after(10 * LEASE_S)
    assert report_after(LEASE_S)


@pytest.mark.parametrize("fault", [None, RegistryRefuses(409, "another life")])
def test_whom_a_registry_answers_is_not_alone(fault: Exception | None) -> None:
    registry, clock = Failing(), TurnedClock()
    talk = make_talk(registry, clock)
    for registry.fault in (Unavailable("503"), fault, Unavailable("503")):
        clock.now_s += LEASE_S
        talk._report_turn(clock.now_s)
        assert not talk.heard().is_alone
