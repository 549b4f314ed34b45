"""The whole supervisor with real processes and tiny workers (`tests.support.workers`)."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from nodeagent.cli.main import main
from nodeagent.contract.report import Phase
from nodeagent.contract.states import State
from nodeagent.infra.wanted import read_wanted
from nodeagent.supervisor.child import threads_of
from nodeagent.supervisor.daemon import EXIT_ALREADY_RUNNING
from tests.support.eventually import eventually
from tests.support.supervised import Supervised, config_text
from tests.support.workers import CRASHES

OTHERS = ["redis", "storage", "inference:0", "judge:0", "alarm:0"]


@pytest.fixture(autouse=True)
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NODEAGENT_SHM_DIR", str(tmp_path / "shm"))
    return tmp_path / "shm"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Supervised]:
    with Supervised(tmp_path / "a", config_text(tmp_path / "a", ["good-1", "good-2"])) as started:
        for name in (*OTHERS, "capture:good-1", "capture:good-2"):
            started.running(name)
        yield started


def left_behind(agent: Supervised, shm: Path) -> list[object]:
    return [*agent.tree(), *(list(shm.rglob("*")) if shm.exists() else [])]


def test_term_drains_in_order_and_leaves_nothing(agent: Supervised, shm: Path) -> None:
    assert agent.stop() == 0
    notes = (agent.state_dir / "notes").read_text().split("\n")[:-1]
    assert sorted(notes[:2]) == ["stopped capture:good-1", "stopped capture:good-2"]
    assert notes[2:] == [f"stopped {name}" for name in ("inference:0", "judge:0", "alarm:0", "storage", "redis")]
    eventually(lambda: not left_behind(agent, shm))


def test_a_second_agent_on_the_state_folder_is_refused(agent: Supervised) -> None:
    with Supervised(agent.folder, agent.config_path.read_text()) as second:
        second.log_path = agent.folder / "second.log"
        assert second.process is not None
        assert second.process.wait(20) == EXIT_ALREADY_RUNNING
    agent.wait_log(f"another agent works on {agent.state_dir}: pid {agent.pid}")
    agent.running("redis")


def test_the_parent_has_no_threads(agent: Supervised) -> None:
    assert threads_of(agent.pid) == 1


def test_children_know_their_place(agent: Supervised) -> None:
    for name, pid in agent.pids().items():
        proc = Path(f"/proc/{pid}")
        assert proc.joinpath("comm").read_text().startswith(name.partition(":")[0])
        # Signals that a terminal sends to the whole group: INT and HUP are bits 1 and 0.
        ignored = int(proc.joinpath("status").read_text().partition("SigIgn:\t")[2].split()[0], 16)
        assert ignored & 0b11 == 0b11
        targets = [str(fd.readlink()) for fd in proc.joinpath("fd").iterdir()]
        assert not [target for target in targets if "agent.lock" in target], "would keep the next agent out"
        assert sum(target.endswith("/lock") for target in targets) == 1
        assert len(targets) < 20, targets


def test_hup_touches_only_the_cameras_that_differ(agent: Supervised) -> None:
    before = agent.pids()
    # good-1 changes its source, good-2 stays, good-3 is new.
    agent.rewrite(config_text(agent.folder, ["good-1=b.mp4", "good-2", "good-3"]))
    agent.hup()
    agent.running("capture:good-3")
    agent.running("capture:good-1", not_pid=before["capture:good-1"])
    after = agent.pids()
    assert {name: after[name] for name in (*OTHERS, "capture:good-2")} == {
        name: before[name] for name in (*OTHERS, "capture:good-2")
    }
    agent.rewrite(config_text(agent.folder, ["good-1=b.mp4", "good-3"]))
    agent.hup()
    eventually(lambda: "capture:good-2" not in {row.name for row in agent.rows()})
    assert agent.pids() == {name: pid for name, pid in after.items() if name != "capture:good-2"}
    wanted = read_wanted(agent.state_dir / "wanted.json")
    assert [camera.camera_id for camera in wanted.cameras] == ["good-1", "good-3"]
    assert wanted.version == 3


def test_a_faulty_file_changes_nothing_and_names_every_fault(agent: Supervised) -> None:
    before, wanted = agent.pids(), (agent.state_dir / "wanted.json").read_bytes()
    agent.rewrite(config_text(agent.folder, ["good-9"], stop_timeout_s=-1, more="nonsense = 3"))
    agent.hup()
    agent.wait_log("not reloaded: node.stop_timeout_s")
    agent.wait_log("not reloaded: node.nonsense: unknown key")
    assert agent.pids() == before
    assert (agent.state_dir / "wanted.json").read_bytes() == wanted


def test_sections_that_need_a_restart_are_named(agent: Supervised) -> None:
    more = "[judge]\nshards = 2\n[capture]\nclip_s = 9\n"
    agent.rewrite(config_text(agent.folder, ["good-1", "good-2"], more=more))
    agent.hup()
    agent.wait_log("changed, but in effect only after a restart: capture, judge")
    assert "judge:1" not in agent.pids()
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(main, ["status", "-c", str(agent.config_path)])
    assert (shown.exit_code, "all well" in shown.output) == (0, True)
    assert "needs restart: [capture], [judge]" in shown.output


def test_a_camera_of_a_model_that_does_not_run_is_refused_and_status_shows_it(agent: Supervised) -> None:
    sound = agent.config_path.read_text()
    more = '[[models]]\nname = "n"\nfile = "n.toml"\n[[cameras]]\ncamera_id = "good-3"\nmodel = "n"\n'
    agent.rewrite(sound + more + 'record = { url = "a.mp4" }\n')
    agent.hup()
    agent.wait_log("not reloaded: cameras[2].model: expected one of ['m']")
    runner = CliRunner(env={"COLUMNS": "200"})
    shown = runner.invoke(main, ["status", "-c", str(agent.config_path)])
    assert shown.exit_code == 1
    for part in ("1 problem", "configuration", "reload refused", "another is loaded at a restart only"):
        assert part in shown.output
    assert "capture:good-3" not in agent.pids()
    agent.rewrite(sound)
    agent.hup()
    eventually(lambda: runner.invoke(main, ["status", "-c", str(agent.config_path)]).exit_code == 0)


def test_crashing_and_hopeless_children_do_not_hold_up_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with Supervised(folder, config_text(folder, ["crash", "fatal", "good"])) as agent:
        agent.running("capture:good")
        row = agent.running("capture:crash")
        assert row.restarts == CRASHES
        fatal = agent.row("capture:fatal")
        assert fatal is not None
        assert (fatal.phase, fatal.state, fatal.detail) == (Phase.FATAL, State.BAD_MODEL, "as ordered")
        assert agent.stop() == 0


def test_a_child_that_its_configuration_keeps_from_serving_says_so_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with Supervised(folder, config_text(folder, ["misconfigured", "good"])) as agent:
        agent.wait_log("capture:misconfigured: cannot serve: database.url: as ordered")
        agent.running("capture:good")
        row = eventually(lambda: (r := agent.row("capture:misconfigured")) and r.phase is Phase.FATAL and r)
        assert row.restarts == 0
        assert "Traceback" not in agent.log()


def test_who_ignores_term_is_killed_and_the_exit_code_says_so(tmp_path: Path, shm: Path) -> None:
    folder = tmp_path / "a"
    with Supervised(folder, config_text(folder, ["stubborn", "good"], stop_timeout_s=2)) as agent:
        agent.running("capture:stubborn")
        agent.running("redis")
        assert agent.stop() == 1
        assert "capture:stubborn is killed: did not stop in time" in agent.log()
        # Its stage's time was bounded: the others still drained.
        assert "stopped redis" in (agent.state_dir / "notes").read_text()
        eventually(lambda: not left_behind(agent, shm))


def test_a_second_term_ends_at_once(tmp_path: Path, shm: Path) -> None:
    folder = tmp_path / "a"
    with Supervised(folder, config_text(folder, ["stubborn"], stop_timeout_s=300)) as agent:
        agent.running("capture:stubborn")
        agent.signal(signal.SIGINT)
        agent.wait_log("SIGINT: draining")
        agent.signal(signal.SIGTERM)
        assert agent.process is not None
        assert agent.process.wait(10) == 1
        eventually(lambda: not left_behind(agent, shm))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_is_a_drain_too(agent: Supervised, number: signal.Signals) -> None:
    os.killpg(agent.pid, number)
    assert agent.process is not None
    assert agent.process.wait(20) == 0
    assert "fork server died" not in agent.log()
    notes = (agent.state_dir / "notes").read_text()
    assert all(f"stopped {name}\n" in notes for name in (*OTHERS, "capture:good-1", "capture:good-2"))


def test_systemd_hears_of_start_reload_and_stop(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "n"))
        systemd.settimeout(20)
        heard: list[str] = []

        def hear(text: str) -> None:
            while not any(text in line for line in heard):
                heard.append(systemd.recv(500).decode())

        environment = {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "600000"}
        with Supervised(folder, config_text(folder, ["crash"]), environment) as agent:
            hear("READY=1")
            assert all(row.phase is Phase.RUNNING for row in agent.rows() if row.name in OTHERS)
            hear("WATCHDOG=1")
            hear("STATUS=cameras: 1 of 1 run; workers: 5 of 5 run")
            heard.clear()
            agent.hup()
            hear("RELOADING=1\nMONOTONIC_USEC=")
            heard.clear()
            hear("READY=1")
            agent.signal(signal.SIGTERM)
            hear("STOPPING=1")
            hear("STATUS=draining; ")


def test_json_logs_are_json(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with Supervised(folder, config_text(folder, ["good"], more='[log]\nformat = "json"')) as agent:
        agent.running("capture:good")
        agent.stop()
        events = [json.loads(line) for line in agent.log().splitlines()]
    assert {"cameras", "child_phase", "ready", "drain"} <= {event["event"] for event in events}
    assert {event["child"] for event in events} == {"agent"}
