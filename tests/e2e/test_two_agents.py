"""Two whole agents on one machine, and a camera that goes from one to the other: nothing of a stage is faked."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.contract.ownership import Resources
from nodeagent.contract.states import State
from nodeagent.infra.storage import Storage, StoredClip, init_pool
from tests.support.agent import Agent, of_registries, whole_node
from tests.support.eventually import eventually
from tests.support.media import make_video
from tests.support.registries import TOKEN, Registry, camera

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.timeout(240)]


@pytest.fixture(autouse=True)
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODEAGENT_SHM_DIR", str(tmp_path / "shm"))


@pytest.fixture
def registry(tmp_path: Path, redis_url: str) -> Iterator[Registry]:
    with Registry(redis_url) as running:
        video = make_video(tmp_path / "source.mp4", seconds=60)
        spec = camera("gate")
        running.configure(
            spec.model_copy(update={"record": spec.record.model_validate({"url": str(video), "loop": True})})
        )
        yield running


def agent(folder: Path, node: str, registry: Registry, redis_url: str) -> Agent:
    init_pool(folder / "pool")
    return Agent(folder, whole_node(node, of_registries(redis_url, [registry.url], TOKEN)))


def clips(of: Agent) -> list[StoredClip]:
    return Storage(of.settings.pools).clips("gate", 0, 2**62)


def captures(of: Agent) -> bool:
    row = of.row("capture:gate")
    return row is not None and row.state is State.CAPTURING and bool(row.counters["samples"])


def measured(registry: Registry) -> Iterator[Resources]:
    """What the camera costs by the newest reports, once the CPU of a whole interval is known."""
    return (r.costs["gate"] for r in registry.reports[-4:] if r.costs and r.costs["gate"].decode_cores > 0)


def test_a_camera_is_recorded_without_a_gap_while_its_node_hands_it_over(
    tmp_path: Path, registry: Registry, redis_url: str
) -> None:
    for name in ("n1", "n2"):
        (tmp_path / name).mkdir()
    with (
        agent(tmp_path / "n1", "n1", registry, redis_url) as first,
        agent(tmp_path / "n2", "n2", registry, redis_url) as second,
    ):
        eventually(lambda: {r.report.node_id for r in registry.reports} == {"n1", "n2"}, within_s=60)
        one = registry.grant("gate", "n1")
        eventually(lambda: captures(first) and len(clips(first)) >= 2, within_s=40)
        assert {clip.clip.epoch for clip in clips(first)} == {one.epoch}
        cost = eventually(lambda: next(measured(registry), None))
        assert cost.infer_per_s == pytest.approx(5.0, rel=0.5)
        assert cost.decode_cores > 0 and cost.write_bytes_s > 0 and cost.ring_bytes > 0
        # It is told to stop: its camera goes to the other node, and it ends when that one captures.
        registry.unseen = frozenset({"gate"})
        os.kill(first.pid, signal.SIGTERM)
        eventually(lambda: any(r.draining for r in registry.reports[-4:]), within_s=5)
        two = registry.grant("gate", "n2")
        eventually(lambda: captures(second), within_s=20)
        registry.unseen = frozenset()
        assert first.process is not None
        assert first.process.wait(30) == 0
        assert "draining; 0 cameras not handed over" in first.log_tail()
        eventually(lambda: len(clips(second)) >= 2, within_s=20)
        assert {clip.clip.epoch for clip in clips(second)} == {two.epoch}
        assert max(clip.end_ns for clip in clips(first)) >= min(clip.clip.start_ns for clip in clips(second))
