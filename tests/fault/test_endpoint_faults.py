"""The clip endpoint as part of a whole agent: killed, in the way of another, and at the agent's end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from nodeagent.contract.states import State
from nodeagent.infra.storage import Storage, init_pool
from tests.support.agent import Agent
from tests.support.clip_files import cut_clips
from tests.support.eventually import eventually
from tests.support.inference import DEMO
from tests.support.media import make_video
from tests.support.serving import TOKEN, T, free_port

PATH = f"/api/v1/cameras/gate/clips/7/{T}.mp4"


@pytest.fixture(autouse=True)
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NODEAGENT_SHM_DIR", str(tmp_path / "shm"))
    return tmp_path / "shm"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent without cameras, but with a clip from before."""
    init_pool(tmp_path / "pool")
    port = free_port()
    config = f"""
        [node]
        node_id = "n2"
        state_dir = "{tmp_path / "state"}"
        stop_timeout_s = 8
        [[pool]]
        path = "{tmp_path / "pool"}"
        reserve_gb = 0
        [[models]]
        name = "m"
        file = "{DEMO / "person_demo.toml"}"
        [endpoint]
        listen = "127.0.0.1:{port}"
        tokens = [{{ name = "nodes", token = "{TOKEN}" }}]
    """
    made = Agent(tmp_path / "agent", config)
    cut_clips(Storage(made.settings.pools), make_video(tmp_path / "source.mp4", seconds=3), [T])
    yield made
    made.stop()


def get(agent: Agent) -> httpx.Response | None:
    """The clip, or None while nobody answers."""
    assert agent.settings.endpoint is not None
    try:
        url = f"http://{agent.settings.endpoint.listen}{PATH}"
        return httpx.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)
    except httpx.TransportError:
        return None


def test_the_endpoint_of_an_agent_waits_for_its_port_survives_kill_9_and_ends_in_good_order(agent: Agent) -> None:
    assert agent.settings.endpoint is not None
    with socket.create_server(agent.settings.endpoint.address):
        agent.start()
        row = eventually(
            lambda: (found := agent.row("endpoint")) and found.state is State.LISTEN_FAILED and found, within_s=60
        )
        assert row.detail == f"{agent.settings.endpoint.listen}: Address already in use"
    answer = eventually(lambda: get(agent), within_s=40)
    assert answer.status_code == 200
    before = agent.running("endpoint").pid
    os.kill(before, signal.SIGKILL)
    agent.running("endpoint", not_pid=before)
    assert eventually(lambda: get(agent), within_s=20).content == answer.content
    assert agent.stop() == 0
    log = agent.log_path.read_text()
    assert f"GET {PATH} by nodes: 200" in log
    assert TOKEN not in log
