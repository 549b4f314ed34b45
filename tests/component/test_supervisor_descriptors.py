"""The supervisor at its limit of open files, with the real limit of a real process."""

import errno
import os
import resource
from pathlib import Path

import pytest

from nodeagent.contract.errors import Unavailable
from nodeagent.contract.report import Kind, Phase
from nodeagent.infra.board import Board
from nodeagent.infra.incarnation import lock_state_dir, start_life
from nodeagent.infra.open_files import raise_limit
from nodeagent.infra.settings.loader import load_settings
from nodeagent.supervisor import forkserver
from nodeagent.supervisor.descriptors import SPARE
from nodeagent.supervisor.forkserver import Starter
from nodeagent.supervisor.orders import OrderMaker
from nodeagent.supervisor.roster import Want
from tests.support.eventually import eventually
from tests.support.supervised import Supervised, config_text

#: Descriptors that the supervisor holds per child.
PER_CHILD = 3
CAMERAS = [f"good-{number}" for number in range(9)]


@pytest.fixture(autouse=True)
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NODEAGENT_SHM_DIR", str(tmp_path / "shm"))
    return tmp_path / "shm"


def test_a_child_too_many_waits_and_says_why_and_the_others_never_notice(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with Supervised(folder, config_text(folder, CAMERAS[:1])) as agent:
        for name in ("redis", "storage", "inference:0", "judge:0", "alarm:0", "capture:good-0"):
            agent.running(name)
        before, server = agent.pids(), agent.fork_server()
        used = len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))
        hard = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (used + 2 * PER_CHILD + SPARE - 1, hard))
        agent.rewrite(config_text(folder, CAMERAS))
        agent.hup()
        for name in ("capture:good-1", "capture:good-2"):
            agent.running(name)
        agent.wait_log("capture:good-8 cannot be started: too many open files: raise LimitNOFILE")
        row = agent.row("capture:good-8")
        assert row is not None
        assert row.phase is Phase.BACKOFF
        assert "too many open files: raise LimitNOFILE" in row.detail
        assert agent.fork_server() == server
        assert before.items() <= agent.pids().items()
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (hard, hard))
        agent.running("capture:good-8")
        assert "fork server died" not in agent.log()


def test_the_agent_uses_all_that_the_system_allows(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with Supervised(folder, config_text(folder, CAMERAS), launcher=("prlimit", "--nofile=32:")) as agent:
        for name in CAMERAS:
            agent.running(f"capture:{name}")
        assert resource.prlimit(agent.pid, resource.RLIMIT_NOFILE) == (hard, hard)


def test_a_limit_that_cannot_be_raised_is_said_and_no_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_which: int, _limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (256, 512))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    raise_limit()
    assert "open files stay limited to 256" in caplog.text


def test_a_child_that_cannot_be_held_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "nodeagent.toml"
    path.write_text(config_text(tmp_path, ["good"]))
    settings = load_settings(path)
    lock = lock_state_dir(settings.node.state_dir)
    life = start_life(lock)
    board = Board.create(life.board_path, "n1", os.getpid(), 1)
    starter = Starter("tests.support.workers")
    orders = OrderMaker(settings, life.path, starter.preload)
    want = Want(Kind.CAPTURE, "good")
    order = orders.make(want, "tests.support.workers:main", board.claim(want.name, want.kind).index)
    pidfd_open, asked = os.pidfd_open, list[int]()

    def refuse(pid: int) -> int:
        asked.append(pid)
        if pid == starter.server_pid or len(asked) == 1:
            return pidfd_open(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(forkserver.os, "pidfd_open", refuse)
    try:
        with pytest.raises(Unavailable, match=r"capture:good cannot be started: .*Too many open files"):
            starter.start(order)
        # The fork server was held, then the child was not.
        assert len(asked) == 2
        eventually(lambda: not Path(f"/proc/{asked[1]}").exists())
    finally:
        starter.close()
        life.remove()
        lock.release()
