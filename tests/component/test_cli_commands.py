"""Every command against real folders, boards and databases; the agent itself is not needed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli
from click.testing import CliRunner, Result

from nodeagent import __version__
from nodeagent.alarm.store import AlarmStore
from nodeagent.cli.demo_config import CLIP, MODEL
from nodeagent.cli.main import COMMANDS, main
from nodeagent.contract.clip import ClipId, clip_file_name
from nodeagent.contract.ids import NS_PER_S
from nodeagent.contract.report import Kind, Phase
from nodeagent.contract.states import State
from nodeagent.infra.board import Board
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.database import migrate, open_database
from nodeagent.infra.gaps import Gap, GapReason, append_gap
from nodeagent.infra.incarnation import SHM_VARIABLE, lock_state_dir, start_life
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.storage import Storage
from nodeagent.supervisor import daemon
from nodeagent.supervisor.reload_note import ReloadNote, write_note
from registry.cli import COMMANDS as REGISTRY_COMMANDS
from registry.cli import main as registry
from tests.architecture.source_tree import ROOT
from tests.support.alarms import T0, message

S = 1_000_000_000

CONFIG = f"""
[site]
time_zone = "Asia/Shanghai"
[node]
node_id = "n1"
state_dir = "state"
[[pool]]
path = "disk"
[[models]]
name = "person"
file = "{MODEL}"
[[push]]
name = "mes"
url = "https://user:hunter2@mes.example/hook?token=hunter2"
secret = "hunter2"
[[cameras]]
camera_id = "gate"
record = {{ url = "rtsp://user:hunter2@127.0.0.1/x" }}
  [[cameras.rules]]
  rule_id = "r"
  kind = "intrusion"
  labels = ["person"]
  zones = [{{ name = "z", polygon = [[0, 0], [1, 0], [0, 1]] }}]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "nodeagent.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """The board of an agent that seems to run on the state folder."""
    monkeypatch.setenv(SHM_VARIABLE, str(tmp_path / "shm"))
    lock = lock_state_dir(tmp_path / "state")
    life = start_life(lock)
    made = Board.create(life.board_path, "n1", os.getpid(), SystemClock().wall_ns() - 100 * S)
    lock.note(life.path.name)
    yield made
    life.remove()
    lock.release()


def nodeagent(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(main, [str(part) for part in arguments])


def child(board: Board, name: str, state: State, phase: Phase = Phase.RUNNING) -> None:
    cell = board.claim(name, Kind(name.partition(":")[0]))
    cell.begin(SystemClock().wall_ns())
    cell.phase(phase, os.getpid(), 0)
    cell.state(state, "the reason" if state is State.AUTH_FAILED else "")


def test_every_command_is_found_and_the_help_names_it() -> None:
    shown = nodeagent("--help").output
    for name, (_, line) in COMMANDS.items():
        assert name in shown and line[:40] in shown
        assert nodeagent(name, "--help").exit_code == 0


def test_versions() -> None:
    assert __version__ in nodeagent("--version").output
    assert __version__ in CliRunner().invoke(registry, ["--version"]).output


def test_an_unknown_command_is_a_usage_error() -> None:
    result = nodeagent("staus")
    assert result.exit_code == 2
    assert "No such command" in result.output


def test_help_of_the_registry_lists_every_command() -> None:
    shown = CliRunner().invoke(registry, ["--help"]).output
    for name, (_, line) in REGISTRY_COMMANDS.items():
        assert name in shown and line[:40] in shown
        assert CliRunner().invoke(registry, [name, "--help"]).exit_code == 0


def test_config_check_of_a_sound_file(config: Path) -> None:
    result = nodeagent("config", "check", config)
    assert result.exit_code == 0, result.output
    assert "1 cameras, 1 rules" in result.output
    assert "note: pool[0].path" in result.output
    nodeagent("pool", "init", config.parent / "disk")
    assert "note:" not in nodeagent("config", "check", config).output


def test_config_check_names_every_fault(config: Path) -> None:
    config.write_text(CONFIG.replace('"n1"', '"../n"').replace("[site]", "[site]\ncolour = 1"))
    result = nodeagent("config", "check", config)
    assert result.exit_code == 2
    assert "2 faults" in result.output
    assert "node.node_id: expected letters" in result.output
    assert "(got '../n')" in result.output
    assert "site.colour: unknown key" in result.output


def test_config_check_looks_at_the_files_that_are_named(config: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("name = 'x'\n")
    more = """
        [[models]]
        name = "gone"
        file = "gone.toml"
        [[models]]
        name = "broken"
        file = "broken.toml"
        [[cameras]]
        camera_id = "file"
        record = { url = "gone.mp4" }
    """
    config.write_text(CONFIG.replace('["person"]', '["persn"]') + more)
    result = nodeagent("config", "check", config)
    assert result.exit_code == 2
    for part in (
        "models[1].file: expected the model's TOML, but there is no such file",
        "models[2].file:",
        "cameras[0].rules[0].labels[0]: expected one of the model's labels, ['person'] (got 'persn')",
        "cameras[1].record.url: expected a video, but there is no such file",
    ):
        assert part in result.output


def test_a_missing_file_is_a_fault_not_a_traceback(tmp_path: Path) -> None:
    for arguments in (["status"], ["clips"], ["alarms"], ["run"], ["config", "show"]):
        result = nodeagent(*arguments, "-c", tmp_path / "none.toml")
        assert result.exit_code == 2
        assert "cannot be read: No such file" in result.output


def test_the_file_can_be_named_by_the_environment(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODEAGENT_CONFIG", str(config))
    assert nodeagent("config", "check").exit_code == 0
    assert 'node_id = "n1"' in nodeagent("config", "show").output


def test_config_show_fills_in_defaults_and_hides_secrets(config: Path) -> None:
    result = nodeagent("config", "show", "-c", config)
    shown = tomli.loads(result.output)
    assert "hunter2" not in result.output
    assert shown["capture"]["clip_s"] == 5.0
    assert shown["node"]["state_dir"] == str(config.parent / "state")
    assert shown["cameras"][0]["record"]["url"] == "rtsp://***@127.0.0.1/x"
    assert shown["push"][0] == {
        "name": "mes",
        "url": "https://***@mes.example/hook?token=***",
        "secret": "***",
        "timeout_s": 10.0,
    }


def test_config_show_hides_a_secret_that_looks_like_a_url(config: Path) -> None:
    for secret in ("/hunter2", "x://hunter2", "https://hunter2"):
        config.write_text(CONFIG.replace('secret = "hunter2"', f'secret = "{secret}"'))
        result = nodeagent("config", "show", "-c", config)
        assert "hunter2" not in result.output
        assert tomli.loads(result.output)["push"][0]["secret"] == "***"


def test_config_check_finds_what_run_refuses(config: Path) -> None:
    config.write_text(CONFIG.replace('"state"', f'"{"s" * 120}"'))
    result = nodeagent("config", "check", config)
    assert result.exit_code == 2
    assert "node.state_dir: expected at most 83 bytes" in result.output


def test_config_check_looks_for_the_video_that_capture_opens(config: Path, tmp_path: Path) -> None:
    shutil.copy(CLIP, tmp_path / "a b.mp4")
    config.write_text(CONFIG.replace("rtsp://user:hunter2@127.0.0.1/x", f"file://{tmp_path}/a%20b.mp4"))
    assert nodeagent("config", "check", config).exit_code == 0
    (tmp_path / "a b.mp4").unlink()
    assert f"(got '{tmp_path}/a b.mp4')" in nodeagent("config", "check", config).output


def test_config_check_does_not_print_a_url_whose_scheme_was_forgotten(config: Path) -> None:
    config.write_text(CONFIG.replace("rtsp://user", "user"))
    result = nodeagent("config", "check", config)
    assert result.exit_code == 2
    assert "cameras[0].record.url: expected a video" in result.output
    assert "hunter2" not in result.output


@pytest.mark.parametrize("name", ["nodeagent.toml", "embedded.toml"])
def test_the_examples_pass_the_check(name: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "etc" / name, tmp_path / name)
    (tmp_path / "models").mkdir()
    shutil.copy(MODEL, tmp_path / "models" / "person.toml")
    shutil.copy(MODEL.with_suffix(".onnx"), tmp_path / "models")
    (tmp_path / "videos").mkdir()
    shutil.copy(CLIP, tmp_path / "videos" / "door.mp4")
    result = nodeagent("config", "check", tmp_path / name)
    assert result.exit_code == 0, result.output


def test_status_without_an_agent(config: Path) -> None:
    result = nodeagent("status", "-c", config)
    assert result.exit_code == 3
    assert "no agent is running" in result.output


def test_status_when_all_is_well(config: Path, board: Board) -> None:
    for name in ("capture:gate", "capture:door"):
        child(board, name, State.CAPTURING)
    child(board, "judge:0", State.RUNNING)
    result = nodeagent("status", "-c", config)
    assert result.exit_code == 0, result.output
    assert "all well" in result.output
    assert "2 cameras capturing" in result.output
    assert "capture:gate" not in result.output


def test_status_shows_a_problem_with_cause_and_hint(config: Path, board: Board) -> None:
    child(board, "capture:gate", State.AUTH_FAILED)
    child(board, "judge:0", State.RUNNING, Phase.BACKOFF)
    result = nodeagent("status", "-c", config)
    assert result.exit_code == 1
    for part in ("2 problems", "capture:gate", "auth_failed", "the reason", "correct them", "backoff"):
        assert part in result.output


def test_a_file_that_is_faulty_by_now_does_not_hide_the_agent_that_runs(config: Path, board: Board) -> None:
    child(board, "capture:gate", State.AUTH_FAILED)
    config.write_text(config.read_text().replace("[[cameras]]", "[[camera]]", 1) + "\n[sit]\n")
    result = nodeagent("status", "-c", config)
    assert result.exit_code == 2
    for part in ("sit: unknown", "capture:gate", "auth_failed"):
        assert part in result.output


def test_status_as_json_is_the_report(config: Path, board: Board) -> None:
    child(board, "capture:gate", State.AUTH_FAILED)
    result = nodeagent("status", "-c", config, "--json")
    report = json.loads(result.output)
    assert result.exit_code == 1
    assert (report["node_id"], report["version"]) == ("n1", __version__)
    assert [(row["name"], row["state"]) for row in report["rows"]] == [("capture:gate", "auth_failed")]


def test_status_shows_a_refused_reload_and_what_waits_for_a_restart(config: Path, board: Board) -> None:
    child(board, "judge:0", State.RUNNING)
    faults = tuple(f"cameras[{i}].model: no" for i in range(5))
    note = ReloadNote(at_ns=SystemClock().wall_ns(), refused=faults, needs_restart=("bus", "judge"))
    state_dir = load_settings(config).node.state_dir
    write_note(state_dir, note)
    result = nodeagent("status", "-c", config)
    assert result.exit_code == 1
    for part in ("1 problem", "reload refused", "cameras[2].model: no", "and 2 more", "needs restart: [bus], [judge]"):
        assert part in result.output
    assert "cameras[3]" not in result.output
    assert json.loads(nodeagent("status", "-c", config, "--json").output)["reload"]["refused"] == list(faults)
    (state_dir / "reload.json").write_text("{")
    assert json.loads(nodeagent("status", "-c", config, "--json").output)["reload"] is None


def test_status_watch_ends_with_the_agent(config: Path, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    child(board, "judge:0", State.RUNNING)
    pauses: list[float] = []

    def interrupt(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("nodeagent.cli.status_command.time.sleep", interrupt)
    result = nodeagent("status", "-c", config, "--watch")
    assert result.exit_code == 0, result.output
    assert len(pauses) == 3
    assert nodeagent("status", "-c", config, "--watch", "--json").exit_code == 2


def test_a_board_of_something_else_is_said_not_shown(config: Path, board: Board, tmp_path: Path) -> None:
    (made,) = (tmp_path / "shm").rglob("board")
    made.write_bytes(b"x" * 4096)
    result = nodeagent("status", "-c", config)
    assert result.exit_code == 3
    assert "cannot be seen" in result.output


def stored_clip(config: Path, camera: str, start_ns: int) -> Path:
    settings = load_settings(config)
    nodeagent("pool", "init", settings.pool[0].path)
    clip = ClipId(camera_id=camera, epoch=1, start_ns=start_ns)
    path = Storage(settings.pools).folder_for(camera, start_ns) / clip_file_name(clip, 5 * S)
    path.write_bytes(b"x" * 1000)
    return path


def test_clips_are_listed_in_the_sites_time(config: Path) -> None:
    path = stored_clip(config, "gate", 1_795_494_669 * S)
    asked = ["clips", "-c", config, "--from", "2026-11-24 12:00", "--to", "2026-11-24 13:00"]
    result = nodeagent(*asked)
    assert result.exit_code == 0, result.output
    assert "1 clips" in result.output
    assert "2026-11-24 12:31:09" in result.output
    (line,) = nodeagent(*asked, "--json").output.splitlines()
    assert json.loads(line) == {
        "camera_id": "gate",
        "epoch": 1,
        "start_ns": 1_795_494_669 * S,
        "duration_ns": 5 * S,
        "bytes": 1000,
        "path": str(path),
    }
    assert nodeagent(*asked, "--camera", "other", "--json").output == ""
    assert nodeagent("clips", "-c", config, "--from", "2020-01-01", "--to", "2020-01-02", "--json").output == ""


def test_clips_says_what_time_it_expects(config: Path) -> None:
    result = nodeagent("clips", "-c", config, "--from", "yesterday")
    assert result.exit_code == 2
    assert "expected `2026-11-24 08:30`" in result.output


def test_gaps_are_listed_with_their_reason(config: Path) -> None:
    start_ns = SystemClock().wall_ns() - 60 * S
    gap = Gap(from_ns=start_ns, to_ns=start_ns + 7 * S, reason=GapReason.SOURCE_DOWN, detail="refused [gate]")
    append_gap(load_settings(config).node.state_dir, "gate", gap)
    result = nodeagent("clips", "-c", config, "--gaps")
    assert result.exit_code == 0, result.output
    for part in ("7.0 s not recorded", "gate", "source_down", "refused [gate]"):
        assert part in result.output
    (line,) = nodeagent("clips", "-c", config, "--gaps", "--json").output.splitlines()
    assert json.loads(line)["reason"] == "source_down"


def test_alarms_before_the_first_start(config: Path) -> None:
    result = nodeagent("alarms", "-c", config)
    assert result.exit_code == 0
    assert "no database yet" in result.output
    assert not (config.parent / "state").exists()
    assert nodeagent("alarms", "-c", config, "show", "1").exit_code == 1


def test_alarms_of_a_file_that_is_not_there_does_not_make_it(config: Path, tmp_path: Path) -> None:
    config.write_text(CONFIG + f'\n[database]\nurl = "sqlite:///{tmp_path}/new/a.db"\n')
    for arguments in (["--limit", "5"], ["show", "1"]):
        assert "no database yet" in nodeagent("alarms", "-c", config, *arguments).output
    assert not (tmp_path / "new").exists()


def recorded_alarm(config: Path) -> str:
    settings = load_settings(config)
    engine = open_database(settings.database_url)
    migrate(engine)
    body = message(camera_id="gate")
    AlarmStore(engine, "test").record(body, SystemClock().wall_ns())
    engine.dispose()
    return body.dedup_key


def test_alarms_are_listed_and_shown(config: Path) -> None:
    key = recorded_alarm(config)
    listed = nodeagent("alarms", "-c", config)
    assert listed.exit_code == 0, listed.output
    assert "1 alarms" in listed.output and "gate" in listed.output and "received" in listed.output
    (line,) = nodeagent("alarms", "-c", config, "--json").output.splitlines()
    assert json.loads(line)["dedup_key"] == key
    for name in (key, "1"):
        shown = nodeagent("alarms", "-c", config, "show", name)
        assert shown.exit_code == 0, shown.output
        assert key in shown.output and "confirming sample" in shown.output
    assert json.loads(nodeagent("alarms", "-c", config, "show", key, "--json").output)["camera_id"] == "gate"
    assert json.loads(nodeagent("alarms", "-c", config, "--camera", "x", "--json").output or "[]") == []
    assert nodeagent("alarms", "-c", config, "show", "f" * 32).exit_code == 1


def test_alarms_say_why_nobody_was_told_and_what_a_summary_tells(config: Path) -> None:
    engine = open_database(load_settings(config).database_url)
    migrate(engine)
    for n in range(2):
        sent = message(camera_id="gate", confirmed_ns=T0 + n * 100 * NS_PER_S, storm_per_hour=1)
        AlarmStore(engine, "test").record(sent, SystemClock().wall_ns())
    engine.dispose()
    listed = " ".join(nodeagent("alarms", "-c", config).output.split())
    assert "recorded, storm" in listed
    documents = [json.loads(line) for line in nodeagent("alarms", "-c", config, "--json").output.splitlines()]
    assert sorted((doc["untold"], doc["summary"][:34]) for doc in documents) == [
        ("", ""), ("", "rule yard on camera gate: 1 alarm "), ("storm", ""),
    ]  # fmt: skip
    key = next(doc["dedup_key"] for doc in documents if doc["untold"])
    shown = " ".join(nodeagent("alarms", "-c", config, "show", key).output.split())
    assert "recorded storm: more than storm_per_hour = 1 within the hour" in shown


def test_alarms_follow_prints_what_changed(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded_alarm(config)
    pauses: list[float] = []

    def another(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt
        if len(pauses) == 1:
            engine = open_database(load_settings(config).database_url)
            AlarmStore(engine, "test").record(message(camera_id="door", dedup_key="b" * 32), SystemClock().wall_ns())
            engine.dispose()

    monkeypatch.setattr("nodeagent.cli.alarms_command.time.sleep", another)
    result = nodeagent("alarms", "-c", config, "--follow", "--json")
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["camera_id"] for line in result.output.splitlines()] == ["gate", "door"]


def test_alarms_with_the_database_away(config: Path) -> None:
    config.write_text(CONFIG + '\n[database]\nurl = "mysql://u:hunter2@127.0.0.1:1/x"\n')
    result = nodeagent("alarms", "-c", config)
    assert result.exit_code == 1
    assert "database:" in result.output
    assert "hunter2" not in result.output


def test_pool_init_twice_keeps_the_id_and_a_refusal_is_said(tmp_path: Path) -> None:
    first, second = (nodeagent("pool", "init", tmp_path / "disk") for _ in range(2))
    assert first.exit_code == 0
    assert first.output == second.output
    (tmp_path / "file").touch()
    refused = nodeagent("pool", "init", tmp_path / "file" / "x")
    assert refused.exit_code == 1
    assert "Not a directory" in refused.output


def test_run_hands_on_the_daemons_exit_code(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Path] = []

    def run(_settings: object, path: Path) -> int:
        started.append(path)
        return 4

    monkeypatch.setattr(daemon, "run", run)
    assert nodeagent("run", "-c", config).exit_code == 4
    assert started == [config.resolve()]


def test_run_names_faults_that_only_show_on_this_machine(config: Path) -> None:
    config.write_text(CONFIG.replace('"state"', f'"{"s" * 120}"'))
    result = nodeagent("run", "-c", config)
    assert result.exit_code == 2
    assert "node.state_dir: expected at most" in result.output
