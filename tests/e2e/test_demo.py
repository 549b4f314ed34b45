"""`nodeagent demo` as a new user runs it: embedded services, the shipped clip, one stage killed half-way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.browser import play
from tests.support.eventually import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

#: The first full replay is pushed about 38 s after the start; a busy machine gets some more.
SECONDS = 52


@dataclass(frozen=True, slots=True)
class Run:
    """A finished demo: where it ran, its folder, exit code and what it printed."""

    cwd: Path
    folder: Path
    code: int
    text: str


def start(cwd: Path, *options: str) -> subprocess.Popen[str]:
    """Start a demo in `cwd`, in a session of its own, as a terminal would."""
    environment = {**os.environ, "COLUMNS": "200", "HOME": str(cwd), "TMPDIR": str(cwd)}
    # As in a terminal: whoever runs the tests in the background has SIGINT ignored, and would hand that on.
    heed = "import signal, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); "
    return subprocess.Popen(
        [sys.executable, "-c", heed + "runpy.run_module('nodeagent', run_name='__main__')", "demo", *options],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def processes_with(text: str) -> list[str]:
    """Command lines of running processes that name `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run with two cameras."""
    cwd = tmp_path_factory.mktemp("demo")
    process = start(cwd, "--seconds", str(SECONDS), "--cameras", "2", "--dir", "out")
    text, _ = process.communicate(timeout=SECONDS + 120)
    yield Run(cwd, cwd / "out", process.returncode, text)


def test_an_alarm_with_a_verified_replay_is_pushed(run: Run) -> None:
    assert run.code == 0, run.text
    assert re.search(r"\d+ alarms? pushed, each with a verified replay", run.text)


def test_everything_is_accounted_for_although_a_stage_was_killed(run: Run) -> None:
    assert "was killed with -9; it had finished a clip again" in run.text
    accounts = re.findall(
        r"cam\d: clips made (\d+) = announced (\d+) = judged (\d+); samples expected (\d+), judged (\d+)", run.text
    )
    assert len(accounts) == 2, run.text
    for made, announced, judged, expected, seen in accounts:
        assert int(made) >= SECONDS // 5 - 2
        assert made == announced == judged
        assert expected == seen


def test_it_says_what_it_did_not_show(run: Run) -> None:
    for missing in ("RabbitMQ and MySQL", "A GPU", "A second server"):
        assert missing in run.text


def test_nothing_is_written_outside_its_folder_and_nothing_runs_on(run: Run) -> None:
    assert str(run.folder) in run.text, "the folder is named"
    assert [path.name for path in run.cwd.iterdir()] == ["out"]
    assert not list((run.folder / "memory").rglob("*.g*")), "rings are gone"
    assert processes_with(str(run.folder)) == []


def test_the_report_is_one_file_that_needs_nothing_else(run: Run) -> None:
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"(?:src|href)=\"(?!data:)[^\"]*\"", page) == []
    assert 'src="data:video/mp4;base64,' in page
    assert 'src="data:image/jpeg;base64,' in page
    assert "Idempotency-Key" in page
    assert "The ledger balances" in page


@pytest.mark.browser
def test_chromium_plays_a_clip_and_a_replay_as_they_are(run: Run) -> None:
    clips = sorted(run.folder.glob("pool/clips/cam1/*/*/*.mp4"))
    replays = sorted(run.folder.glob("alarms/*/*.mp4"))
    clip, replay = play(clips[2]), play(replays[0])
    assert clip.error == ""
    assert clip.frames > 20
    assert 2.0 <= clip.duration_s <= 8.0
    assert replay.error == ""
    assert replay.duration_s >= 30.0
    assert replay.frames > 250


def test_a_used_folder_is_refused(run: Run) -> None:
    process = start(run.cwd, "--dir", "out")
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "not empty" in text


def test_interrupt_leaves_no_process_and_says_that_nothing_was_shown(tmp_path: Path) -> None:
    # At once: each loads for longer than it runs.
    began = {}
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        (cwd := tmp_path / ending.name).mkdir()
        began[ending] = start(cwd, "--seconds", "60", "--cameras", "1", "--dir", "out")
    for ending, process in began.items():
        board = tmp_path / ending.name / "out" / "memory"
        eventually(lambda board=board: any(board.rglob("board")), within_s=120)
        process.send_signal(ending)
    for process in began.values():
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 1, text
    assert processes_with(str(tmp_path)) == []


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """Demos that cannot show anything, side by side: with a `model` that is none, and a `source` that is away."""
    cwd = tmp_path_factory.mktemp("failing")
    (cwd / "broken.toml").write_text("name = 'x'\n")
    wrong = {"model": str(cwd / "broken.toml"), "source": "rtsp://127.0.0.1:9/x"}
    began = {}
    for name, value in wrong.items():
        (cwd / name).mkdir()
        options = ("--seconds", "20", "--cameras", "1", "--no-kill", "--dir", "out")
        began[name] = start(cwd / name, *options, f"--{name}", value)
    texts = {name: process.communicate(timeout=120)[0] for name, process in began.items()}
    yield {name: Run(cwd / name, cwd / name / "out", began[name].returncode, texts[name]) for name in wrong}


def test_an_own_model_that_is_none_is_named(failing: dict[str, Run]) -> None:
    assert failing["model"].code == 1, failing["model"].text
    assert "bad_model" in failing["model"].text
    assert "broken.toml" in failing["model"].text


def test_the_push_in_the_report_is_what_the_target_got(run: Run) -> None:
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    shown = re.search(r"<pre>(.*?)</pre>", page, re.DOTALL)
    assert shown is not None
    body = shown[1].replace("&#34;", '"').split("\n\n", 1)[1]
    push = json.loads(body)
    assert push["site"] == "demo"
    assert push["replay"]["seconds"] >= 30
    assert Path(push["replay"]["path"]).is_file()


def test_a_camera_that_does_not_answer_is_the_reason_and_no_ledger_balances(failing: dict[str, Run]) -> None:
    run = failing["source"]
    assert run.code == 1, run.text
    assert "Nothing was recorded." in run.text
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "source_down" in page
    assert "Nothing broke a rule" not in page
    assert (run.folder / "nodeagent.toml").stat().st_mode & 0o077 == 0
