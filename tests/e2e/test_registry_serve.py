"""`registry serve` as a process of its own: its commands, its API, and its end."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from registry.cli import main as registry
from tests.support.eventually import eventually
from tests.support.registry_http import report_of
from tests.support.registry_nodes import row
from tests.support.registry_store import draft
from tests.support.services import free_port

pytestmark = pytest.mark.e2e

LIFE = "00000000000000a1"
MAIN = [sys.executable, "-c", "from registry.cli import main; main()"]


def config(folder: Path, name: str, redis_url: str | None = None) -> tuple[Path, str]:
    """A registry's file, and its address."""
    port = free_port()
    text = f'[registry]\nregistry_id = "{name}"\nport = {port}\nstate_dir = "{folder / name}"\n'
    text += f'[database]\nurl = "sqlite:///{folder}/site.db"\n[secrets]\nkey_file = "{folder}/keys"\n'
    if redis_url is not None:
        text += f'[redis]\nurl = "{redis_url}"\n'
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path, f"http://127.0.0.1:{port}"


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [*MAIN, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def token(path: Path, *arguments: str) -> str:
    # In this process: another one would load for longer than it works.
    done = CliRunner().invoke(registry, ["token", "create", *arguments, "-c", str(path)])
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


@contextmanager
def serving(path: Path, url: str = "") -> Iterator[subprocess.Popen[str]]:
    """Serve until the block ends; with a `url`, only from when it is ready."""
    with path.with_suffix(".log").open("a") as log:
        # As a shell starts it, with few files; `exec`: its number is the registry's.
        line = ["sh", "-c", 'ulimit -Sn 256 && exec "$@"', "sh", *MAIN, "serve", "-c", str(path)]
        process = subprocess.Popen(line, stderr=log, text=True, env=dict(os.environ))
        try:
            if url:
                eventually(lambda: is_ready(url), within_s=40)
            yield process
        finally:
            process.kill()
            process.wait()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def client(url: str, secret: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {secret}"}
    return httpx.Client(base_url=f"{url}/api/v1", headers=headers, trust_env=False, timeout=20)


def make_camera(people: httpx.Client) -> None:
    made = people.post("/cameras", json=json.loads(draft("gate-1").model_dump_json(context={"reveal": True})))
    assert made.status_code == 201, made.text


class Node:
    """A node that reports and asks for its cameras."""

    def __init__(self, secret: str) -> None:
        self.secret, self.seq = secret, 0

    def cameras(self, url: str) -> list[dict[str, Any]]:
        self.seq += 1
        body = report_of("n1", self.seq, LIFE, rows=(row("gate-1"),)).model_dump_json()
        with client(url, self.secret) as asked:
            answer = asked.post("/nodes/n1/report", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == 200, answer.text
            found = asked.get("/nodes/n1/cameras", params={"incarnation": LIFE}).json()
        assert isinstance(found, list)
        return found


def test_a_registry_serves_from_tokens_to_a_cameras_configuration(tmp_path: Path) -> None:
    path, url = config(tmp_path, "reg1")
    admin, node = token(path, "anna", "--role", "admin"), Node(token(path, "n1", "--node", "n1"))
    secret = tmp_path / "anna.token"
    secret.write_text(admin)
    with serving(path, url) as process:
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        assert soft == hard, "each agent keeps a connection open"
        thaw = command("thaw", "--url", url, "--token-file", secret)
        assert (thaw.returncode, thaw.stdout) == (0, "evictions were not held\n")
        second = command("serve", "-c", path)
        assert (second.returncode, second.stderr) == (4, f"another registry works on {tmp_path / 'reg1'}\n")
        with client(url, admin) as people:
            make_camera(people)
        (listed,) = eventually(lambda: node.cameras(url), within_s=20, every_s=0.5)
        assert listed["camera"]["record"]["url"].startswith("rtsp://viewer:hunter2@")
        assert listed["epoch"] > 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    log = path.with_suffix(".log").read_text()
    assert "hunter2" not in log
    assert admin not in log
    assert "traceback" not in log.lower()
    # Started anew, it knows the owner, and gives the same epoch.
    with serving(path, url):
        (again,) = eventually(lambda: node.cameras(url), within_s=20, every_s=0.5)
        assert again["epoch"] == listed["epoch"]


def test_two_registries_lead_one_after_the_other(tmp_path: Path, redis_url: str) -> None:
    (path, url), (other_path, other_url) = (config(tmp_path, name, redis_url) for name in ("reg1", "reg2"))
    admin, node = token(path, "anna", "--role", "admin"), Node(token(path, "n1", "--node", "n1"))
    with serving(path) as first, serving(other_path), client(url, admin) as people:
        eventually(lambda: is_ready(url) and is_ready(other_url), within_s=60)
        make_camera(people)
        # Reports go to the one that follows.
        (listed,) = eventually(lambda: node.cameras(other_url), within_s=20, every_s=0.5)
        first.send_signal(signal.SIGKILL)
        first.wait()
        with client(other_url, admin) as asked:
            eventually(lambda: asked.get("/cluster").json()["leader"] == "reg2", within_s=20)
            assert node.cameras(other_url) == [listed]
            assert [one["node_id"] for one in asked.get("/nodes").json()["nodes"]] == ["n1"]
