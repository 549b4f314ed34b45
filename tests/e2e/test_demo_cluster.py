"""`registry demo-cluster` as a new user runs it: real registries and agents, one of each killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.storage import Storage
from tests.e2e.test_demo import processes_with
from tests.support.eventually import eventually

# Well under a minute; a machine that is busy with other tests takes longer.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def start(cwd: Path, *options: str) -> subprocess.Popen[str]:
    """Start the demo in `cwd`, in a session of its own, as a terminal would."""
    return subprocess.Popen(
        [sys.executable, "-m", "registry", "demo-cluster", *options],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), "COLUMNS": "200", "HOME": str(cwd), "TMPDIR": str(cwd)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_the_demo_of_a_cluster_shows_a_killed_nodes_cameras_elsewhere_and_a_killed_leader(tmp_path: Path) -> None:
    process = start(tmp_path, "--cameras", "3", "--dir", "out")
    text, _ = process.communicate(timeout=280)
    assert process.returncode == 0, text
    shown = re.search(r"Shown: (\d) of 3 cameras of a killed node .* the last ([\d.]+) s after the kill", text)
    assert shown is not None, text
    assert int(shown[1]) >= 1
    assert re.search(r"registry-\d leads after [\d.]+ s", text)
    # What it says of the nodes is what they recorded: all cameras on the second one, those of the first on both.
    recorded = {}
    for node in ("node-a", "node-b"):
        storage = Storage(load_settings(tmp_path / "out" / f"{node}.toml").pools)
        recorded[node] = {cam for cam in ("cam1", "cam2", "cam3") if storage.clips(cam, 0, 2**62)}
    assert recorded["node-b"] == {"cam1", "cam2", "cam3"}
    assert len(recorded["node-a"]) == int(shown[1])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert processes_with(str(tmp_path)) == []


@pytest.mark.parametrize("after_s", [0.5, 6.0], ids=["early", "while it starts"])
def test_ended_by_hand_it_leaves_no_process(tmp_path: Path, after_s: float) -> None:
    process = start(tmp_path, "--cameras", "2", "--dir", "out")
    eventually(lambda: (tmp_path / "out" / "redis" / "redis.pid").exists(), within_s=60)
    ends_s = time.monotonic() + after_s
    eventually(lambda: time.monotonic() > ends_s, within_s=30)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 1, text
    assert "interrupted" in text
    assert processes_with(str(tmp_path)) == []
