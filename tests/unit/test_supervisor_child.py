"""What a child checks of the fork server that it comes from, and how its name is cut."""

import os
import threading
from types import ModuleType

import pytest

from nodeagent.contract.errors import ConfigError
from nodeagent.infra.settings.sections import Settings
from nodeagent.supervisor.child import server_faults, threads_of
from nodeagent.supervisor.children import how_ended
from nodeagent.supervisor.daemon import check_machine


def preload(**attributes: object) -> ModuleType:
    module = ModuleType("p")
    module.__dict__.update(attributes)
    return module


@pytest.mark.parametrize(
    ("module", "threads", "faults"),
    [
        (preload(LOADED=True, FAILED={}), 1, []),
        (None, 1, ["p is not loaded"]),
        (preload(FAILED={}), 1, ["p is not loaded"]),
        (preload(LOADED=True, FAILED={"cv2": "no"}), 1, ["cv2 could not be loaded: no"]),
        (preload(LOADED=True, FAILED={}), 3, ["3 threads, expected 1"]),
    ],
)
def test_every_fault_of_the_fork_server_is_named(module: ModuleType | None, threads: int, faults: list[str]) -> None:
    assert server_faults("p", module, threads) == faults


def test_threads_are_counted() -> None:
    before, end = threads_of(os.getpid()), threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    assert threads_of(os.getpid()) == before + 1
    end.set()
    thread.join()
    assert threads_of(2**22 + 1) == 0


def test_ends_in_words() -> None:
    assert [how_ended(code) for code in (0, 3, -6, -9)] == [
        "exit code 0",
        "exit code 3",
        "SIGABRT",
        "SIGKILL, perhaps out of memory",
    ]


def test_a_state_folder_too_long_for_a_socket_is_a_fault_of_the_configuration() -> None:
    check_machine(Settings.model_validate({"node": {"state_dir": "/s" * 40}}))
    with pytest.raises(ConfigError, match=r"node.state_dir: expected at most 83 bytes"):
        check_machine(Settings.model_validate({"node": {"state_dir": "/s" * 42}}))
