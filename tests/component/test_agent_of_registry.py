"""A whole agent of a registry: supervisor and link are real, the other workers are tiny (`tests.support.workers`)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.contract.report import Phase
from nodeagent.infra.wanted import read_wanted
from nodeagent.supervisor.child import threads_of
from tests.support.eventually import eventually
from tests.support.registries import TOKEN, Registry, camera
from tests.support.supervised import Supervised, config_text

pytestmark = pytest.mark.services

OTHER_LIFE = "b" * 16


@pytest.fixture(autouse=True)
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NODEAGENT_SHM_DIR", str(tmp_path / "shm"))
    return tmp_path / "shm"


@pytest.fixture
def registry(redis_url: str) -> Iterator[Registry]:
    with Registry(redis_url) as running:
        for name in ("good-1", "good-2", "good-3"):
            running.configure(camera(name))
        yield running


@pytest.fixture
def agent(tmp_path: Path, registry: Registry, redis_url: str) -> Iterator[Supervised]:
    more = f'[redis]\nurl = "{redis_url}"\n[registry]\nurls = ["{registry.url}"]\ntoken = "{TOKEN}"\n'
    config = config_text(tmp_path / "a", [], more=more)
    with Supervised(tmp_path / "a", config, {"TEST_LINK": "real"}) as started:
        started.running("link")
        eventually(lambda: registry.reports)
        yield started
        # Else its end would wait for others to take its cameras.
        registry.refusal = (503, b"")


def captures(agent: Supervised) -> set[str]:
    return {row.name for row in agent.rows() if row.name.startswith("capture:") and row.phase is Phase.RUNNING}


def epoch_of(agent: Supervised, camera_id: str) -> int:
    return read_wanted(agent.state_dir / "wanted.json").epoch(camera_id)


def test_granted_cameras_are_captured_with_their_epochs(agent: Supervised, registry: Registry) -> None:
    granted = registry.grant("good-1")
    agent.running("capture:good-1")
    assert epoch_of(agent, "good-1") == granted.epoch
    eventually(lambda: "capture:good-1" in {row.name for row in registry.last.report.rows})
    # A later grant to the same node starts nothing anew.
    pid = agent.pids()["capture:good-1"]
    registry.state.grant(registry.term, "good-1", "n2", OTHER_LIFE)
    anew = registry.grant("good-1")
    eventually(lambda: epoch_of(agent, "good-1") == anew.epoch)
    assert agent.pids()["capture:good-1"] == pid
    registry.state.grant(registry.term, "good-1", "n2", OTHER_LIFE)
    eventually(lambda: not captures(agent), within_s=8)
    assert threads_of(agent.pid) == 1


def test_a_link_that_is_killed_comes_back_and_no_camera_notices(agent: Supervised, registry: Registry) -> None:
    registry.grant("good-1")
    before = agent.running("capture:good-1").pid
    for name in ("good-2", "good-3"):
        link = agent.pids()["link"]
        os.kill(link, signal.SIGKILL)
        # Granted while nobody listens.
        registry.grant(name)
        agent.running("link", not_pid=link)
        agent.running(f"capture:{name}")
    assert agent.pids()["capture:good-1"] == before
    assert len({report.incarnation for report in registry.reports}) == 1
    numbers = [report.seq for report in registry.reports]
    assert numbers == sorted(set(numbers))


def test_an_agent_that_is_killed_serves_its_cameras_again_while_the_registry_is_away(
    agent: Supervised, registry: Registry
) -> None:
    epochs = {name: registry.grant(name).epoch for name in ("good-1", "good-2")}
    for name in epochs:
        agent.running(f"capture:{name}")
    registry.refusal = (503, b"")
    agent.kill9()
    count = len(registry.reports)
    agent.start()
    for name, epoch in epochs.items():
        agent.running(f"capture:{name}")
        assert epoch_of(agent, name) == epoch
    registry.refusal = None
    eventually(lambda: len(registry.reports) > count)
    assert registry.last.incarnation != registry.reports[0].incarnation
    eventually(lambda: {(h.camera_id, h.epoch) for h in registry.last.holds} == set(epochs.items()))
    # The registry moves one and grants the other anew.
    registry.state.grant(registry.term, "good-1", "n2", OTHER_LIFE)
    anew = registry.grant("good-2")
    eventually(lambda: captures(agent) == {"capture:good-2"})
    eventually(lambda: epoch_of(agent, "good-2") == anew.epoch)


def test_a_drain_hands_cameras_over_before_it_stops_them(agent: Supervised, registry: Registry) -> None:
    epochs = {name: registry.grant(name).epoch for name in ("good-1", "good-2")}
    for name in epochs:
        agent.running(f"capture:{name}")
    registry.unseen = frozenset(epochs)
    agent.signal(signal.SIGTERM)
    eventually(lambda: registry.last.draining)
    for name in epochs:
        registry.state.grant(registry.term, name, "n2", OTHER_LIFE)
    said = len(registry.reports)
    eventually(lambda: len(registry.reports) >= said + 2)
    assert captures(agent) == {"capture:good-1", "capture:good-2"}
    # They are captured there now.
    registry.unseen = frozenset()
    assert agent.process is not None
    assert agent.process.wait(10) == 0
    assert "draining; 0 cameras not handed over" in agent.log()
    assert read_wanted(agent.state_dir / "granted.json").cameras == ()


def test_a_drain_that_nobody_answers_does_not_wait(agent: Supervised, registry: Registry) -> None:
    registry.grant("good-1")
    agent.running("capture:good-1")
    registry.refusal = (503, b"")
    reports = registry.asked.count("/api/v1/nodes/n1/report")
    # One that is restarted is waited for, so it has to be away for a while.
    eventually(lambda: registry.asked.count("/api/v1/nodes/n1/report") >= reports + 7, within_s=20)
    agent.signal(signal.SIGTERM)
    agent.wait_log("handing cameras over")
    began_s = time.monotonic()
    agent.wait_log("draining; 1 cameras")
    # Else half of `stop_timeout_s` would pass.
    assert time.monotonic() - began_s < 0.4 * agent.settings.node.stop_timeout_s
    assert agent.process is not None
    assert agent.process.wait(20) == 0
    assert "draining; 1 cameras not handed over" in agent.log()
    # The next start begins with it.
    assert [spec.camera_id for spec in read_wanted(agent.state_dir / "granted.json").cameras] == ["good-1"]
