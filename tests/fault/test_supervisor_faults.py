"""What the supervisor makes of hangs and kills; real processes, tiny workers."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from nodeagent.contract.report import Phase
from tests.support.eventually import eventually
from tests.support.supervised import Supervised, config_text

#: A killed supervisor's children are gone within half a second; a busy machine may take longer, seconds.
ORPHANS_GONE_S = 3.0


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an agent's temporary files would lie."""
    (folder := tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def shm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # As short as the real one: a socket lies below it.
    with TemporaryDirectory(prefix="na-") as folder:
        monkeypatch.setenv("NODEAGENT_SHM_DIR", f"{folder}/shm")
        yield Path(folder, "shm")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Supervised]:
    with Supervised(tmp_path / "a", config_text(tmp_path / "a", ["good-1", "good-2"])) as started:
        for name in ("redis", "storage", "inference:0", "judge:0", "alarm:0", "capture:good-1", "capture:good-2"):
            started.running(name)
        yield started


def lives(shm: Path) -> list[Path]:
    return list(shm.glob("*/*"))


def test_a_killed_child_is_back_and_the_others_never_noticed(agent: Supervised) -> None:
    before = agent.pids()
    os.kill(before["capture:good-1"], signal.SIGKILL)
    row = agent.running("capture:good-1", not_pid=before["capture:good-1"])
    assert row.restarts == 1
    agent.wait_log("capture:good-1: running -> backoff (SIGKILL, perhaps out of memory; starts again in")
    after = agent.pids()
    assert {n: p for n, p in after.items() if n != row.name} == {n: p for n, p in before.items() if n != row.name}


def test_a_busy_hang_leaves_a_traceback_and_starts_again(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with Supervised(folder, config_text(folder, ["busy"])) as agent:
        agent.wait_log("capture:busy hangs: no beat for")
        agent.wait_log("in _busy_here")
        row = eventually(lambda: (r := agent.running("capture:busy")) and r.restarts == 1 and r)
        assert row.pid


def test_a_stopped_process_counts_as_hanging_too(agent: Supervised) -> None:
    pid = agent.pids()["judge:0"]
    os.kill(pid, signal.SIGSTOP)
    row = agent.running("judge:0", not_pid=pid)
    assert row.restarts == 1
    agent.wait_log("Fatal Python error: Aborted")
    agent.wait_log("judge:0: running -> backoff (SIGABRT")


def test_a_child_that_never_shows_life_is_started_again(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with Supervised(folder, config_text(folder, ["mute"])) as agent:
        agent.wait_log("capture:mute hangs: no beat for 4")
        row = eventually(lambda: (r := agent.row("capture:mute")) and r.phase is Phase.RUNNING and r)
        assert row.restarts == 1


def test_children_do_not_outlive_a_killed_supervisor(agent: Supervised, shm: Path) -> None:
    assert len(agent.tree()) >= 8
    started = time.monotonic()
    agent.kill9()
    eventually(lambda: not agent.tree(), within_s=10)
    assert time.monotonic() - started < ORPHANS_GONE_S
    old = lives(shm)
    assert len(old) == 1
    agent.start()
    agent.running("capture:good-1")
    assert len(lives(shm)) == 1
    assert lives(shm) != old
    assert agent.stop() == 0
    assert not shm.exists()


def test_a_child_that_cannot_see_the_supervisor_die_is_swept_by_the_next_agent(agent: Supervised, shm: Path) -> None:
    stuck = agent.pids()["capture:good-1"]
    os.kill(stuck, signal.SIGSTOP)
    agent.kill9()
    # It keeps the fork server and multiprocessing's resource tracker alive.
    eventually(lambda: len(agent.tree()) <= 3)
    agent.start()
    agent.wait_log(f"ending process {stuck} of an old life")
    agent.running("capture:good-1", not_pid=stuck)
    assert len(lives(shm)) == 1


def test_after_a_kill_of_everything_the_next_start_leaves_one_life_only(
    agent: Supervised, shm: Path, temporary: Path
) -> None:
    for pid in agent.tree():
        # One whose parent was killed may be gone before its turn comes.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    agent.kill9()
    old = lives(shm)
    agent.start()
    agent.running("capture:good-1")
    assert len(lives(shm)) == 1
    assert lives(shm) != old
    assert len(list(shm.glob("*/*/pymp-*/listener-*"))) == 1
    assert list(temporary.iterdir()) == []


def test_a_kill_at_any_moment_of_the_start_leaves_what_the_next_start_sweeps(tmp_path: Path, shm: Path) -> None:
    folder = tmp_path / "a"
    agent = Supervised(folder, config_text(folder, ["good-1", "good-2"]))
    for tenth in range(2, 14, 2):
        agent.start()
        # Not to wait for something: the moment itself is what is tried.
        time.sleep(tenth / 10)
        agent.kill9()
        eventually(lambda: not agent.tree())
    with agent:
        agent.running("capture:good-2")
        assert len(lives(shm)) == 1
        assert agent.stop() == 0
    assert not shm.exists()


def test_a_killed_fork_server_takes_its_children_along_and_all_come_back(agent: Supervised) -> None:
    before, server = agent.pids(), agent.fork_server()
    os.kill(server, signal.SIGKILL)
    for name, pid in before.items():
        agent.running(name, not_pid=pid)
    assert not set(before.values()) & set(agent.tree())
    assert agent.fork_server() != server
    agent.wait_log("the fork server died; all children are started again")
    assert agent.stop() == 0


def test_children_report_a_fork_server_that_is_not_as_it_should_be(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    agent = Supervised(folder, config_text(folder, ["good"]), {"TEST_PRELOAD": "no_such_module"})
    with agent:
        agent.wait_log("capture:good: fork server: no_such_module is not loaded")
        agent.running("capture:good")
    threaded = Supervised(folder, config_text(folder, ["good"]), {"TEST_PRELOAD": "tests.support.threaded_preload"})
    with threaded:
        threaded.wait_log("capture:good: fork server: 2 threads, expected 1")
