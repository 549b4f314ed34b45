"""Reading a sound configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.contract.errors import ConfigError
from nodeagent.infra.settings.loader import load_settings, parse_settings

FULL = """
[site]
name = "North works"
time_zone = "Asia/Shanghai"

[node]
node_id = "node-1"
state_dir = "state"

[bus]
url = "amqps://agent:pa%20ss@broker:5671/site"

[redis]
url = "redis://:secret@cache:6379/0"

[database]
url = "mysql://agent:secret@db:3306/nodeagent"

[[pool]]
path = "/srv/disk1"
quota_gb = 50

[[models]]
name = "person"
file = "models/person.toml"

[[push]]
name = "mes"
url = "https://mes.example/alarms"
secret = "shared"

[[cameras]]
camera_id = "gate-1"
record = { url = "rtsp://viewer:pw@10.0.0.5:554/main" }
sample_fps = 4

[[cameras.rules]]
rule_id = "no-entry"
kind = "intrusion"
zones = [{ name = "door", polygon = [[0, 0], [0.5, 0], [0.5, 1]] }]

[[cameras.rules]]
rule_id = "hanging-about"
kind = "loitering"
dwell_s = 20
zones = [{ name = "door", polygon = [[0, 0], [0.5, 0], [0.5, 1]] }]

[[cameras]]
camera_id = "gate-2"
record = { url = "videos/gate.mp4", loop = true }
"""


def test_everything_arrives(tmp_path: Path) -> None:
    settings = parse_settings(FULL, tmp_path / "nodeagent.toml")
    camera = settings.cameras[0]
    assert settings.site.time_zone == "Asia/Shanghai"
    assert settings.bus and settings.bus.url.get_secret_value().startswith("amqps://agent:")
    assert [rule.kind for rule in camera.rules] == ["intrusion", "loitering"]
    assert camera.sample_fps == 4.0
    assert settings.database_url == "mysql://agent:secret@db:3306/nodeagent"
    assert not settings.embedded_redis


def test_a_calendar_is_in_the_schedules_that_name_it(tmp_path: Path) -> None:
    text = (
        FULL
        + """
[[cameras.rules]]
rule_id = "night"
kind = "intrusion"
zones = [{ name = "z", polygon = [[0, 0], [1, 0], [0, 1]] }]
schedule = { time_zone = "Asia/Shanghai", weekly = ["mon-fri 22:00-06:00", "off 00:00-24:00"], calendar = "plant" }
[[calendars]]
name = "plant"
days_off = ["2026-10-01/2026-10-07", 2027-01-01]
make_up_days = ["2026-10-10"]
"""
    )
    settings = parse_settings(text, tmp_path / "nodeagent.toml")
    schedule = settings.cameras[-1].rules[-1].schedule
    assert schedule and schedule.calendar == settings.calendars[0]
    assert settings.calendars[0].days_off == ("2026-10-01/2026-10-07", "2027-01-01")
    assert settings.calendars[0].make_up_as == "mon"


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = parse_settings(FULL, tmp_path / "nodeagent.toml")
    assert settings.node.state_dir == tmp_path / "state"
    assert settings.models[0].file == tmp_path / "models/person.toml"
    assert settings.pool[0].path == Path("/srv/disk1")
    urls = [camera.record.url.get_secret_value() for camera in settings.cameras]
    assert urls == ["rtsp://viewer:pw@10.0.0.5:554/main", str(tmp_path / "videos/gate.mp4")]


def test_an_empty_file_means_the_embedded_services(tmp_path: Path) -> None:
    settings = parse_settings("", tmp_path / "nodeagent.toml")
    state = settings.node.state_dir
    assert settings.bus is None
    assert settings.embedded_redis
    assert settings.redis_url == f"unix://{state}/redis/redis.sock"
    assert settings.database_url == f"sqlite:///{state}/nodeagent.db"
    assert [pool.path for pool in settings.pools] == [state / "pool"]
    assert settings.evidence_dir == state / "alarms"
    assert settings.node.node_id


def test_no_secret_in_what_the_settings_print(tmp_path: Path) -> None:
    settings = parse_settings(FULL, tmp_path / "nodeagent.toml")
    printed = repr(settings) + settings.model_dump_json()
    for secret in ("pa%20ss", "secret@", "viewer:pw", "shared"):
        assert secret not in printed


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent.toml", None, "cannot be read: No such file or directory"),
        ("broken.toml", b"[site\n", "not TOML"),
        ("latin.toml", b"# caf\xe9\n", "expected UTF-8 text, byte 5"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_fault(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / name)
    assert len(caught.value.faults) == 1
    assert said in str(caught.value)
    assert name in caught.value.faults[0].path


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "nodeagent.toml"
    path.write_bytes(b"\xef\xbb\xbf" + FULL.encode())
    assert load_settings(path).node.node_id == "node-1"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_settings(tmp_path)
