"""Files of cameras for `registry import`: every fault with its path, and what the file leaves to the registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.contract.errors import ConfigError
from registry.commands.camera_file import load_cameras

GOOD = """
[node]
node_id = "not checked here"
[[cameras]]
camera_id = "gate"
model = "named on the nodes only"
record = { url = "videos/gate.mp4" }
[[cameras]]
camera_id = "yard"
enabled = false
group = "north/hall-1"
labels = { site = "north" }
record = { url = "rtsp://user:hunter2@10.0.0.7/main" }
"""
FAULTY = """
[[cameras]]
camera_id = "gate"
record = { url = "rtsp://user:hunter2@" }
labels = { site = "no th" }
[[cameras]]
camera_id = "gate"
recrod = { url = "a.mp4" }
enabled = "yes"
  [[cameras.rules]]
  rule_id = "r"
  kind = "loitering"
  dwell_s = -1
  zones = [{ name = "z", polygon = [[0, 0], [1, 0], [0, 1]] }]
"""


def faults(path: Path, text: str) -> dict[str, str]:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_cameras(path)
    assert "hunter2" not in str(caught.value)
    return {fault.path: fault.message for fault in caught.value.faults}


def test_every_fault_is_named_where_it_stands_in_the_file(tmp_path: Path) -> None:
    found = faults(tmp_path / "c.toml", FAULTY)
    assert sorted(found) == [
        "cameras[0].labels.site",
        "cameras[0].record.url",
        "cameras[1].camera_id",
        "cameras[1].enabled",
        "cameras[1].record",
        "cameras[1].recrod",
        "cameras[1].rules[0].dwell_s",
    ]
    assert found["cameras[1].recrod"] == "unknown key; did you mean record?"
    assert found["cameras[1].camera_id"].startswith("taken by cameras[0]")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("cameras = 3", "cameras"),
        ("cameras = [3]", "cameras[0]"),
        ("[[camera]]\nx = 1", "cameras"),
        ("", "cameras"),
        ("[[cameras]]\nspec = 1", "cameras[0].spec"),
        ("x = ", "c.toml"),
    ],
)
def test_a_file_without_cameras_is_a_fault(tmp_path: Path, text: str, path: str) -> None:
    assert any(found.endswith(path) for found in faults(tmp_path / "c.toml", text))


def test_an_agents_file_can_be_given_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(GOOD.replace("named on the nodes only", "person"))
    gate, yard = load_cameras(path)
    assert gate.draft.spec.record.url.get_secret_value() == str(tmp_path / "videos/gate.mp4")
    assert yard.draft.spec.record.url.get_secret_value() == "rtsp://user:hunter2@10.0.0.7/main"
    assert (yard.draft.enabled, yard.draft.group, yard.draft.labels) == (False, "north/hall-1", {"site": "north"})


def test_calendars_of_the_file_go_with_its_rules(tmp_path: Path) -> None:
    text = (
        GOOD
        + """
  [[cameras.rules]]
  rule_id = "r"
  kind = "intrusion"
  zones = [{ name = "z", polygon = [[0, 0], [1, 0], [0, 1]] }]
  schedule = { time_zone = "Asia/Shanghai", weekly = ["off 00:00-24:00"], calendar = "plant" }
[[calendars]]
name = "plant"
days_off = ["2026-10-01"]
"""
    )
    path = tmp_path / "c.toml"
    path.write_text(text.replace("named on the nodes only", "person"))
    schedule = load_cameras(path)[1].draft.spec.rules[0].schedule
    assert schedule and schedule.calendar and schedule.calendar.days_off == ("2026-10-01",)
    assert faults(path, path.read_text().replace("2026-10-01", "October"))["calendars[0].days_off[0]"]


def test_what_the_file_does_not_say_stays_as_the_registry_has_it(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(GOOD.replace("named on the nodes only", "person").replace("enabled = false\n", ""))
    kept = {"enabled": False, "group": "south", "labels": {"gpu": "l4"}}
    gate, yard = (camera.beside(kept) for camera in load_cameras(path))
    assert (gate.enabled, gate.group, gate.labels) == (False, "south", {"gpu": "l4"})
    assert (yard.enabled, yard.group, yard.labels) == (False, "north/hall-1", {"site": "north"})
