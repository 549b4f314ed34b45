"""A broker that hangs keeps no report of the node back."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nodeagent.contract.ownership import Unfinished
from nodeagent.contract.report import NodeReport
from nodeagent.infra.settings.sections import Settings
from nodeagent.supervisor.link import unfinished
from tests.support.eventually import eventually


class HangingBus:
    """Has nothing, and does not return from `close` before it is let."""

    def __init__(self) -> None:
        self.closing, self.released = threading.Event(), threading.Event()

    def depth(self, _queue: str) -> int:
        return 0

    def taken(self, _queue: str) -> int:
        return 0

    def close(self) -> None:
        self.closing.set()
        self.released.wait(20)


def test_who_asks_does_not_wait_for_a_connection_that_cannot_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = HangingBus()
    monkeypatch.setattr(unfinished, "open_bus", lambda _: bus)
    monkeypatch.setattr(unfinished, "LOOK_S", 0.02)
    settings = Settings.model_validate({"node": {"node_id": "n1", "state_dir": str(tmp_path)}})
    report = NodeReport(node_id="n1", host="h", version="1", agent_pid=1, started_ns=1, rows=())
    leftovers = unfinished.Leftovers(settings, lambda: report)
    nothing = Unfinished(cameras=0, clips=0, detections=0, alarms=0)
    eventually(lambda: leftovers.left(serves=False) == nothing)
    leftovers.left(serves=True)
    assert bus.closing.wait(5)
    with ThreadPoolExecutor(1) as pool:
        try:
            assert pool.submit(leftovers.left, serves=False).result(timeout=5) == Unfinished()
        finally:
            bus.released.set()
    leftovers.close()
