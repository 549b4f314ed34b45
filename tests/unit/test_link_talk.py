"""What the link takes for stale, in whatever order its two threads are answered."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from nodeagent.contract.ownership import ReportAnswer
from nodeagent.infra.clock import SystemClock
from nodeagent.supervisor.link.client import Listing
from nodeagent.supervisor.link.talk import Talk
from tests.support.eventually import eventually


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


def test_a_list_that_came_before_any_report_was_answered_is_asked_for_again_and_then_not() -> None:
    registry = Registry()
    cell = SimpleNamespace(add=lambda *_: None, get=lambda _: 1, set=lambda *_: None)
    reports = SimpleNamespace(make=lambda *_, **__: None)
    talk = Talk(registry, reports, "a" * 16, cell, SystemClock())  # type: ignore[arg-type]
    talk.want_list()
    talk.start()
    eventually(lambda: talk.heard().asked_s is not None)
    # A camera may have changed between that list and this answer.
    eventually(lambda: talk.heard().is_stale)
    talk.want_list()
    eventually(lambda: registry.lists == 2 and not talk.heard().is_stale)
    talk.close()
