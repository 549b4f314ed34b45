"""`nodeagent run` with a registry within its tree: one server, edited over HTTP, on embedded Redis and SQLite."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from nodeagent.contract.report import Phase
from nodeagent.contract.states import State
from nodeagent.infra.storage import Storage, init_pool
from tests.support.agent import Agent, whole_node
from tests.support.eventually import eventually
from tests.support.media import make_video
from tests.support.services import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

CAMERA = '[[cameras]]\ncamera_id = "{name}"\nrecord = {{ url = "{video}", loop = true }}\n'


class Server:
    """One server, its file's cameras, and what people do with it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.video = make_video(folder / "source.mp4", seconds=60)
        init_pool(folder / "pool")
        self.agent = Agent(folder, self.config("gate"))
        self.origin = f"http://127.0.0.1:{self.port}"
        self.said: list[str] = []

    def config(self, *cameras: str) -> str:
        listed = [CAMERA.format(name=name, video=self.video) for name in cameras]
        return whole_node("n1", f'[registry]\ninside = true\nlisten = "127.0.0.1:{self.port}"', *listed)

    @property
    def admin(self) -> str:
        token = (self.agent.folder / "state" / "registry" / "admin.token").read_text().strip()
        self.said.append(token)
        return token

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.admin}", **more.pop("headers", {})}
        return httpx.request(method, f"{self.origin}{path}", headers=headers, trust_env=False, timeout=20, **more)

    def serves(self) -> bool:
        try:
            return httpx.get(f"{self.origin}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def captures(self, camera_id: str) -> bool:
        row = self.agent.row(f"capture:{camera_id}")
        return row is not None and row.state is State.CAPTURING and bool(row.counters["samples"])

    def clips(self, camera_id: str) -> int:
        return len(Storage(self.agent.settings.pools).clips(camera_id, 0, 2**62))

    def command(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", module, *arguments, "-c", str(self.agent.config_path)]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("NODEAGENT_SHM_DIR", str(tmp_path / "shm"))
    return Server(tmp_path)


def test_one_server_is_edited_over_http_and_records_whatever_its_registry_does(server: Server) -> None:
    agent = server.agent
    with socket.create_server(("127.0.0.1", server.port)) as taken, agent:
        # Another program has the port: told, and nothing else is kept from running.
        eventually(lambda: server.captures("gate"), within_s=60)
        row = eventually(lambda: (r := agent.row("registry")) and r.state is State.LISTEN_FAILED and r, within_s=30)
        assert row.detail == f"127.0.0.1:{server.port}: Address already in use"
        first = agent.running("capture:gate")
        taken.close()
        eventually(server.serves, within_s=40)
        made = server.ask(
            "POST",
            "/api/v1/cameras",
            json={"spec": {"camera_id": "yard", "record": {"url": str(server.video), "loop": True}}},
        )
        assert made.status_code == 201, made.text
        eventually(lambda: server.captures("yard"), within_s=30)
        listed = server.command("nodeagent", "cluster", "--json")
        assert listed.returncode == 0, listed.stderr
        assert server.command("registry", "assignments", "--json").stdout.count('"n1"') == 2
        _killed_and_back(server)
        # The registry took the file's camera over while it was captured: nothing began anew.
        assert agent.running("capture:gate").pid == first.pid
        seen = server.command("registry", "probe", "yard")
        assert (seen.returncode, seen.stdout.partition(",")[0]) == (0, "yard"), seen.stderr
        # Both figures are of arrivals, within some seconds.
        line = re.search(
            r"record: h264 320x240, (\S+) pictures per second, a key frame every (\S+) s, no sound", seen.stdout
        )
        assert line is not None, seen.stdout
        assert (float(line[1]), float(line[2])) == (pytest.approx(10, rel=0.3), pytest.approx(1, rel=0.3))
        gone = server.ask("DELETE", "/api/v1/cameras/gate", headers={"If-Match": '"1"'})
        assert gone.status_code == 204, gone.text
        eventually(lambda: agent.row("capture:gate") is None, within_s=20)
        agent.rewrite(server.config("gate", "door"))
        agent.hup()
        eventually(lambda: server.captures("door"), within_s=30)
    before = {name: server.clips(name) for name in ("gate", "yard", "door")}
    assert min(before.values()) > 0
    with agent:
        # As it was edited, whatever the file says.
        eventually(lambda: server.captures("yard") and server.captures("door"), within_s=60)
        eventually(server.serves, within_s=40)
        eventually(lambda: server.clips("yard") > before["yard"] and server.clips("door") > before["door"], within_s=30)
        assert agent.row("capture:gate") is None
        assert [one["camera_id"] for one in server.ask("GET", "/api/v1/cameras").json()["cameras"]] == ["door", "yard"]
    assert server.clips("gate") == before["gate"]
    log = agent.log_path.read_text()
    assert "cameras that were deleted from it: gate" in log
    assert log.count("the registry cannot listen") == 1
    assert "Traceback" not in log
    assert not [token for token in server.said if token in log]


def _killed_and_back(server: Server) -> None:
    """Kill -9 of the registry: recording goes on, and it is back with other tokens and the same owners."""
    agent, token, owners = server.agent, server.admin, server.ask("GET", "/api/v1/assignments").json()
    captures = {name: agent.running(f"capture:{name}").pid for name in ("gate", "yard")}
    clips = server.clips("gate")
    killed = agent.running("registry").pid
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: (row := agent.row("registry")) is not None and row.phase is not Phase.RUNNING, within_s=10)
    eventually(lambda: server.clips("gate") > clips, within_s=20)
    agent.running("registry", not_pid=killed)
    assert server.admin != token
    assert httpx.get(
        f"{server.origin}/api/v1/nodes", headers={"Authorization": f"Bearer {token}"}, trust_env=False
    ).is_client_error
    again = server.ask("GET", "/api/v1/assignments").json()
    assert [(one["camera_id"], one["owner"]) for one in again["assignments"]] == [
        (one["camera_id"], one["owner"]) for one in owners["assignments"]
    ]
    assert {name: agent.running(f"capture:{name}").pid for name in captures} == captures
