"""A faulty configuration: every fault at once, each with path, what stands there and what was expected; no secret."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from nodeagent.contract.errors import ConfigError, Fault
from nodeagent.contract.rule import Rule
from nodeagent.infra.bus.rabbitmq_layout import BACK_SUFFIX, retry_queue
from nodeagent.infra.bus.topology import CLIPS, CLIPS_SPILL, DETECTIONS_LATE, dead_queue
from nodeagent.infra.settings.faults import RULE_KINDS, dotted, faults_of, known_keys, quoted
from nodeagent.infra.settings.loader import parse_settings
from nodeagent.infra.settings.sections import SHARED_WORDS, Settings

MANY = """
[node]
node_id = "../up"
stop_timeout_s = "5"

[site]
time_zone = "Mars"
tme_zone = "UTC"

[bus]
url = "http://user:hunter2@broker"

[capture]
reconnect_min_s = 10
reconnect_max_s = 5

[[push]]
name = "mes"
url = "ftp://user:hunter2@host"
secret = 5
[[push]]
name = "mes"
url = "https://ok.example"

[[models]]
name = "person"
file = "person.toml"

[[cameras]]
camera_id = "gate"
model = "persn"
record = { url = "ftp://user:hunter2@camera", lop = true }
sample_fps = "5"
sample_width = 3
[[cameras.rules]]
rule_id = "a"
kind = "intrusion"
zones = [
  { name = "z", polygon = [[0, 0], [1, 1], [0, 1]] },
  { name = "z", polygon = [[0, 0], [1, 1, 4], [0, 7], ["0.5", 1]] },
]
[[cameras.rules]]
rule_id = "a"
kind = "intrusoin"
[[cameras.rules]]
rule_id = "c"

[[cameras]]
camera_id = "gate"
record = "rtsp://user:hunter2@camera"
[[cameras.rules]]
rule_id = "b"
kind = "loitering"
dwell_s = 0
severity = "high"
storm_per_hour = -1
zones = [
  { name = "one", polygon = [[0, 0], [1, 0]] },
  { name = "two", polygon = [[0, 0], [1, 1], [1, 0], [0, 1]] },
]
"""

#: Path, part of what was expected, and what stands there.
EXPECTED = [
    ("node.node_id", "a letter or digit first", "'../up'"),
    ("node.stop_timeout_s", "a number without quotes", "'5'"),
    ("site.time_zone", "an IANA time zone", "'Mars'"),
    ("site.tme_zone", "unknown key; did you mean time_zone?", ""),
    ("bus.url", "amqp://", "'http://...'"),
    ("capture.reconnect_max_s", "at least reconnect_min_s, 10", "5"),
    ("push[0].url", "http://... or https://...", "'ftp://...'"),
    ("push[0].secret", "text in quotes", ""),
    ("push[1].name", "taken by push[0]", "'mes'"),
    ("cameras[0].model", "one of ['person']", "'persn'"),
    ("cameras[0].record.url", "rtsp://", "'ftp://...'"),
    ("cameras[0].record.lop", "did you mean loop?", ""),
    ("cameras[0].sample_fps", "a number without quotes", "'5'"),
    ("cameras[0].sample_width", "at least 64", "3"),
    ("cameras[0].rules[0].zones[1].name", "taken by cameras[0].rules[0].zones[0]", "'z'"),
    ("cameras[0].rules[0].zones[1].polygon[1]", "at most 2 items, not 3", ""),
    ("cameras[0].rules[0].zones[1].polygon[2][1]", "at most 1", "7"),
    ("cameras[0].rules[0].zones[1].polygon[3][0]", "a number without quotes", "'0.5'"),
    ("cameras[0].rules[1].rule_id", "taken by cameras[0].rules[0]", "'a'"),
    ("cameras[0].rules[1].kind", '"intrusion" or "loitering"', "'intrusoin'"),
    ("cameras[0].rules[2].kind", "required, but missing", ""),
    ("cameras[1].camera_id", "taken by cameras[0]", "'gate'"),
    ("cameras[1].record", "a table", "'rtsp://...'"),
    ("cameras[1].rules[0].dwell_s", "more than 0", "0"),
    ("cameras[1].rules[0].severity", "'info', 'warning' or 'critical'", "'high'"),
    ("cameras[1].rules[0].storm_per_hour", "at least 0", "-1"),
    ("cameras[1].rules[0].zones[0].polygon", "at least 3 items, not 2", ""),
    ("cameras[1].rules[0].zones[1].polygon", "edges cross", ""),
]


def faults_in(text: str) -> dict[str, Fault]:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, Path("/etc/nodeagent/nodeagent.toml"))
    faults = {fault.path: fault for fault in caught.value.faults}
    assert len(faults) == len(caught.value.faults), "a fault was named twice"
    return faults


@pytest.mark.parametrize(("path", "expected", "value"), EXPECTED, ids=[path for path, _, _ in EXPECTED])
def test_each_of_many_faults_is_named(path: str, expected: str, value: str) -> None:
    fault = faults_in(MANY)[path]
    assert expected in fault.message
    assert fault.value == value


def test_nothing_but_the_faults_is_named() -> None:
    assert set(faults_in(MANY)) == {path for path, _, _ in EXPECTED}


def test_no_fault_quotes_a_secret() -> None:
    assert "hunter2" not in "\n".join(str(fault) for fault in faults_in(MANY).values())


CAMERA = """
[[models]]
name = "m"
file = "m.toml"
[[cameras]]
camera_id = "a"
record = { url = "%s" }
"""


@pytest.mark.parametrize(
    "url",
    [
        # A Chinese keyboard's colon, at and slash.
        "rtsp://admin:hunter2@10.0.0.1：554/main",
        "rtsp://admin:hunter2＠10.0.0.1:554/main",
        "rtsp://admin:hunter2@10.0.0.1:554／main",
        "rtsp：//admin:hunter2@10.0.0.1/main",
        "rtsp:/admin:hunter2@10.0.0.1/main",
        "rtsp://admin:hunter2@[10.0.0.1/main",
        "rtsp://admin:hunter2@10.0.0.1:port/main",
        "rtsp://admin:hunter2@10.0.0.1:99999/main",
        "rtsp://admin:hunter2@/main",
        "rtsp://",
        "http：//admin:hunter2@10.0.0.1/live.flv",
        "https:/admin:hunter2@10.0.0.1/live.m3u8",
        "rtmp://admin:hunter2@/live",
        "udp://10.0.0.1:5000",
    ],
)
def test_a_camera_url_that_cannot_be_read_is_a_fault_without_its_password(url: str) -> None:
    (fault,) = faults_in(CAMERA % url).values()
    assert fault.path == "cameras[0].record.url"
    assert fault.message.startswith("expected rtsp://user:password@host:port/path")
    assert "%40" in fault.message
    assert not [part for part in ("hunter2", "10.0.0.1") if part in str(fault)]


@pytest.mark.parametrize(
    ("url", "is_file"),
    [
        ("rtsp://admin:p@ss@10.0.0.1/main", False),
        ("rtsps://[::1]:322/x", False),
        ("RTMP://10.0.0.1/live/cam", False),
        ("rtmps://10.0.0.1/live/cam", False),
        ("http://admin:p@ss@10.0.0.1/cgi-bin/mjpeg?channel=1", False),
        ("https://10.0.0.1/live/index.m3u8", False),
        ("rtsp.mp4", True),
        ("http/a.mp4", True),
        ("file:///a%20b.mp4", True),
    ],
)
def test_a_camera_url_that_cameras_have_is_taken(url: str, is_file: bool) -> None:
    settings = parse_settings(CAMERA % url, Path("/etc/nodeagent/nodeagent.toml"))
    assert settings.cameras[0].record.is_file is is_file


BUS, REDIS, DATABASE = '[bus]\nurl = "{}"', '[redis]\nurl = "{}"', '[database]\nurl = "{}"'
PUSH = '[[push]]\nname = "p"\nurl = "{}"'


@pytest.mark.parametrize(
    ("section", "path", "url"),
    [
        (BUS, "bus.url", "amqp://user:hunter2@host:notaport/x"),
        (BUS, "bus.url", "amqp://"),
        (BUS, "bus.url", "amqp:///vhost"),
        (BUS, "bus.url", "amqp://user:hunter2@host:0/x"),
        (REDIS, "redis.url", "redis://:hunter2@host:99999/0"),
        (REDIS, "redis.url", "redis://:hunter2@host：6379/0"),
        (REDIS, "redis.url", "redis://"),
        (REDIS, "redis.url", "unix://"),
        (REDIS, "redis.url", "unix://var/run/redis.sock"),
        (DATABASE, "database.url", "mysql://user:s3cret@hunter2:12x@host:3306/db"),
        (DATABASE, "database.url", "mysql://user:hunter2@host:33o6/db"),
        (DATABASE, "database.url", "mysql://user:hunter2@host"),
        (DATABASE, "database.url", "mysql://"),
        (DATABASE, "database.url", "sqlite://"),
        (DATABASE, "database.url", "sqlite:///"),
        (DATABASE, "database.url", "sqlite://var/lib/a.db"),
        (PUSH, "push[0].url", "https://"),
        (PUSH, "push[0].url", "https://user:hunter2/x@host"),
        (PUSH, "push[0].url", "https:///hook"),
    ],
)
def test_a_url_that_would_crash_its_worker_is_a_fault(section: str, path: str, url: str) -> None:
    (fault,) = faults_in(section.format(url)).values()
    assert fault.path == path
    assert fault.message.startswith("expected ")
    assert fault.message.endswith("written %3A, %2F and %40")
    assert not [part for part in ("hunter2", "s3cret") if part in str(fault)]


@pytest.mark.parametrize(
    ("section", "url"),
    [
        (BUS, "amqp://host"),
        (BUS, "amqps://agent:p%40s:s@[::1]:5671/site"),
        (REDIS, "redis://:pa%2Fss@host:6379/0"),
        (REDIS, "unix:///run/redis.sock"),
        (REDIS, "unix://user:pw@/run/redis.sock"),
        (DATABASE, "mysql+pymysql://user@host/db"),
        (DATABASE, "sqlite:////var/lib/a.db"),
        (DATABASE, "sqlite:///a.db"),
        (PUSH, "http://user:pw@10.0.0.1:8080/@hook?to=a@b"),
    ],
)
def test_a_sound_url_is_taken(section: str, url: str) -> None:
    assert parse_settings(section.format(url), Path("/etc/nodeagent/nodeagent.toml"))


def test_a_validators_own_words_are_not_used_for_a_secret() -> None:
    class Section(BaseModel):
        secret: str
        name: str

        @field_validator("secret", "name")
        @classmethod
        def _quote(cls, value: str) -> str:
            raise ValueError(f"expected anything but {value}")

    with pytest.raises(ValidationError) as caught:
        Section.model_validate({"secret": "hunter2", "name": "x"})
    faults = faults_of(caught.value.errors(), Section)
    assert [str(fault) for fault in faults] == [
        "secret: expected another value",
        "name: expected anything but x (got 'x')",
    ]


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("[[cameras]]\ncamera_id = 'a'\nrecord = { url = 'a.mp4' }", "models", "at least one [[models]]"),
        ("[[cameras]]\nname = 'x'\n[[models]]\nname='m'\nfile='f'", "cameras[0].camera_id", "required, but missing"),
        ("models = []\n[[cameras]]\ncamera_id = 'a'\nrecord = { url = 'a.mp4' }", "models", "at least one [[models]]"),
        ("cameras = 5", "cameras", "expected a list"),
        ("cameras = [5]", "cameras[0]", "expected a table"),
        ("site = 'x'", "site", "expected a table"),
        ("[inference]\nworkers = 1.5", "inference.workers", "expected a whole number"),
        ("[inference]\nworkers = true", "inference.workers", "expected a number without quotes"),
        ("[[pool]]\npath = 'a'\nquota_gb = nan", "pool[0].quota_gb", "expected"),
        ("[log]\nlevel = 'loud'", "log.level", "'debug', 'info', 'warning' or 'error'"),
        ("[alarm]\nreplay_before_s = 0\nreplay_after_s = 0", "alarm.replay_after_s", "a replay has a length"),
        (
            "models = []\n[[cameras]]\ncamera_id = 'a'\nrecord = { url = 'a.mp4' }\nanalyse = { url = 'gopher://b' }",
            "cameras[0].analyse.url",
            "expected rtsp://",
        ),
        ("[[pool]]\npath = 'a'\n[[pool]]\npath = 'a'", "pool[1].path", "taken by pool[0]"),
        (
            CAMERA % "a.mp4" + "retention = 'gate'\n[[retention]]\nname = 'yard'",
            "cameras[0].retention",
            "expected one of ['default', 'yard'], the names under [[retention]]",
        ),
        ("[[retention]]\nname = 'a'\n[[retention]]\nname = 'a'", "retention[1].name", "taken by retention[0]"),
        ("[[calendars]]\nname = 'a'\n[[calendars]]\nname = 'a'", "calendars[1].name", "taken by calendars[0]"),
        ("[[calendars]]\nname = 'a'\ndays_off = ['1/10/2026']", "calendars[0].days_off[0]", "expected a day or first"),
        ("[[calendars]]\nname = 'a'\ndays_off = ['2026-02-29']", "calendars[0].days_off[0]", "expected a day or first"),
        (
            "[[calendars]]\nname = 'a'\nmake_up_days = ['2026-10-02/2026-10-01']",
            "calendars[0].make_up_days[0]",
            "expected the last day not before the first",
        ),
    ],
)
def test_one_fault(text: str, path: str, message: str) -> None:
    faults = faults_in(text)
    assert message in faults[path].message


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (
            CAMERA % "a.mp4" + '[[cameras.rules]]\nrule_id = "r"\nkind = "intrusion"\ndwell_s = 5\n',
            "cameras[0].rules[0].dwell_s",
            'no key of this kind of rule, but of "loitering"',
        ),
        (
            CAMERA % "a.mp4" + '[[cameras.rules]]\nrule_id = "r"\nkind = "intrusion"\ndwel_s = 5\n',
            "cameras[0].rules[0].dwel_s",
            "unknown key; did you mean dwell_s?",
        ),
        ("[node]\nquota_gb = 5", "node.quota_gb", "unknown key: it belongs into another table"),
        ("[node]\nxyzzy = 5", "node.xyzzy", "unknown key"),
    ],
)
def test_an_unknown_key_says_where_it_belongs(text: str, path: str, message: str) -> None:
    assert faults_in(text)[path].message == message


@pytest.mark.parametrize("name", ["spill", "dead", "late", "back", "retry", "retry.5"])
def test_a_node_is_not_called_as_a_shared_queue(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "expected another name" in faults_in(f'[node]\nnode_id = "{name}"')["node.node_id"].message
    monkeypatch.setattr("socket.gethostname", lambda: name)
    assert "expected another name" in faults_in("")["node.node_id"].message


def test_a_node_may_be_called_nearly_so() -> None:
    path = Path("/etc/nodeagent/nodeagent.toml")
    assert parse_settings('[node]\nnode_id = "spill-1"', path).node.node_id == "spill-1"
    # What is refused are the words that stand behind `clips.` and its like in the names of the bus.
    shared = {name.partition(".")[2].partition(".")[0] for name in (CLIPS_SPILL, DETECTIONS_LATE, dead_queue(CLIPS))}
    assert {*shared, BACK_SUFFIX[1:], retry_queue(CLIPS, 5).split(".")[1]} == SHARED_WORDS


def test_a_polygon_without_area_is_refused() -> None:
    camera = """
        [[models]]
        name = "m"
        file = "m.toml"
        [[cameras]]
        camera_id = "a"
        record = { url = "a.mp4" }
        rules = [{ rule_id = "r", kind = "intrusion", zones = [{ name = "z", polygon = [[0,0],[1,1],[0.5,0.5]] }] }]
    """
    assert "no area" in faults_in(camera)["cameras[0].rules[0].zones[0].polygon"].message


@pytest.mark.parametrize(("rule", "where", "said"), [
    ('kind = "line_crossing", lines = [{ name = "l", line = [[0.5, 0.5], [0.5, 0.5]] }]', "lines[0].line", "one point"),
    ('kind = "line_crossing", zones = []', "zones", "no key of this kind of rule, but of"),
    ('kind = "presence", zones = [Z]', "labels", "required"),
    ('kind = "crowd", zones = [Z], min_count = 0', "min_count", "1"),
    ('kind = "wrong_direction", zones = [Z], heading = [[0.1, 0.1], [0.1, 0.1]]', "", "both points are one"),
    ('kind = "speed", zones = [Z], limit_kmh = 5, ground = [[0,0],[0.5,0.5],[1,1],[0,1]], metres = M',
     "", "ground: three of the four points lie on one line"),
    ('kind = "speed", zones = [Z], limit_kmh = 5, ground = M, metres = [[0,0],[1,1],[1,0],[0,1]]',
     "", "metres: the points are not in the order"),
])  # fmt: skip
def test_a_fault_in_a_rule_of_any_kind_is_named_by_its_field(rule: str, where: str, said: str) -> None:
    zone, square = '{ name = "z", polygon = [[0,0],[1,0],[1,1]] }', "[[0,0],[1,0],[1,1],[0,1]]"
    camera = f"""
        [[models]]
        name = "m"
        file = "m.toml"
        [[cameras]]
        camera_id = "a"
        record = {{ url = "a.mp4" }}
        rules = [{{ rule_id = "r", {rule.replace("Z", zone).replace("M", square)} }}]
    """
    path = ".".join(part for part in ("cameras[0].rules[0]", where) if part)
    assert said in faults_in(camera)[path].message


def test_rule_kinds_come_from_the_contract() -> None:
    assert set(RULE_KINDS) == {model.model_fields["kind"].default for model in get_args(get_args(Rule)[0])}


def test_dotted_leaves_out_the_kind_but_keeps_a_key_of_that_name() -> None:
    assert dotted(("cameras", 1, "rules", 0, "loitering", "zones", 2, "name")) == "cameras[1].rules[0].zones[2].name"
    assert dotted(("site", "loitering")) == "site.loitering"


def test_known_keys_reach_into_lists_and_unions() -> None:
    assert {"camera_id", "dwell_s", "polygon", "heartbeat_s", "quota_gb"} <= known_keys(Settings)


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("push[0].secret", "abc", ""),
        ("node.node_id", "x" * 200, repr("x" * 200)[:60]),
        ("cameras[0].record", "rtsp://u:p@h", "'rtsp://...'"),
        ("bus.url", "u:p@h", ""),
        ("cameras", [1], ""),
    ],
)
def test_quoted(path: str, value: object, shown: str) -> None:
    assert quoted(path, value) == shown
