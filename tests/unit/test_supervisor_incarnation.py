"""One life of an agent: who may start, what `status` finds, what is swept."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.contract.errors import Unavailable
from nodeagent.infra.incarnation import (
    AgentLock,
    AlreadyRunning,
    hold_life,
    live_board_path,
    lock_state_dir,
    start_life,
)

#: Holds the shared lock of the life named on its command line until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from nodeagent.infra.incarnation import hold_life
hold_life(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NODEAGENT_SHM_DIR", str(tmp_path / "shm"))
    return tmp_path / "shm"


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[AgentLock]:
    taken = lock_state_dir(tmp_path / "state")
    yield taken
    taken.release()


def test_a_second_agent_is_told_folder_and_pid(tmp_path: Path, lock: AgentLock) -> None:
    with pytest.raises(AlreadyRunning, match=f"{tmp_path / 'state'}: pid {os.getpid()}"):
        lock_state_dir(tmp_path / "state")


def test_another_state_folder_is_another_agent(tmp_path: Path, lock: AgentLock) -> None:
    other = lock_state_dir(tmp_path / "other")
    other.release()
    assert other.path.parent == tmp_path / "other"


def test_a_state_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"state folder .*/file/state: Not a directory"):
        lock_state_dir(tmp_path / "file" / "state")


def test_a_life_is_private_and_leaves_nothing(shm: Path, lock: AgentLock) -> None:
    life = start_life(lock)
    assert life.path.stat().st_mode & 0o777 == 0o700
    life.remove()
    assert not shm.exists()


def test_the_board_is_found_while_the_agent_lives_only(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    assert live_board_path(state_dir) is None
    lock = lock_state_dir(state_dir)
    life = start_life(lock)
    assert live_board_path(state_dir) is None
    lock.note(life.path.name)
    assert live_board_path(state_dir) is None
    life.board_path.touch()
    assert live_board_path(state_dir) == life.board_path
    lock.release()
    assert live_board_path(state_dir) is None
    life.remove()


def test_what_still_holds_an_old_life_is_ended_and_the_life_removed(lock: AgentLock) -> None:
    old = start_life(lock)
    command = [sys.executable, "-c", HOLDER, str(old.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        # As a killed agent: its own lock goes, its child's stays.
        os.close(old.lock_fd)
        new = start_life(lock)
        assert holder.wait(5) == -9
    assert not old.path.exists()
    assert new.path.exists()
    new.remove()


def test_a_half_made_life_is_swept(lock: AgentLock) -> None:
    first = start_life(lock)
    home = first.path.parent
    os.close(first.lock_fd)
    (home / "half").mkdir()
    new = start_life(lock)
    assert [path.name for path in home.iterdir()] == [new.path.name]
    new.remove()


def test_a_child_of_a_life_that_is_over_learns_it(lock: AgentLock) -> None:
    life = start_life(lock)
    fd = os.open(life.path / "lock", os.O_RDWR)
    os.close(life.lock_fd)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(Unavailable, match="being swept"):
        hold_life(life.path)
    os.close(fd)
    (life.path / "lock").unlink()
    with pytest.raises(Unavailable, match="No such file"):
        hold_life(life.path)


def test_a_folder_that_others_may_enter_is_refused(shm: Path, lock: AgentLock) -> None:
    start_life(lock).remove()
    life = start_life(lock)
    life.path.parent.chmod(0o777)
    with pytest.raises(Unavailable, match="expected a folder that only uid"):
        start_life(lock)
    life.remove()
