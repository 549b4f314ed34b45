"""What a backtest thinks: which clips count, how episodes are paired with what happened, what a cache gives."""

from __future__ import annotations

import os
from datetime import UTC
from pathlib import Path

import pytest

from nodeagent.backtest.cache import ENTRY_MAX, SUFFIX, Cache
from nodeagent.backtest.clips import Video, analysed, files_in, videos_of
from nodeagent.backtest.episodes import Episode
from nodeagent.backtest.truth import Event, by_rule, parse_truth, score
from nodeagent.cli.backtest_rules import Asked, read_trial
from nodeagent.cli.demo_config import MODEL
from nodeagent.contract.clip import ClipId, clip_file_name
from nodeagent.contract.errors import ConfigError

S = 1_000_000_000
T0 = 1_700_000_000 * S


def episode(start_s: float, end_s: float, rule_id: str = "r", zone: str = "z", camera_id: str = "gate") -> Episode:
    start_ns, end_ns = T0 + round(start_s * S), T0 + round(end_s * S)
    return Episode(
        key=f"{start_s}",
        camera_id=camera_id,
        rule_id=rule_id,
        zone=zone,
        kind="intrusion",
        started_ns=start_ns,
        confirmed_ns=start_ns + S,
        ended_ns=end_ns,
        until_ns=end_ns,
        subjects=1,
        values={},
        shadow=False,
    )


def event(start_s: float, end_s: float, rule_id: str = "r", zone: str = "", camera_id: str = "") -> Event:
    return Event(2, camera_id, rule_id, zone, T0 + round(start_s * S), T0 + round(end_s * S))


def test_as_many_events_as_possible_are_paired_and_then_the_best_overlaps() -> None:
    # Greedily the first event would take the long episode, and the second one be missed.
    done = score([event(0, 10), event(9, 30)], [episode(8, 30), episode(0, 2)])
    assert [(e.start_ns, x.key) for e, x in done.pairs] == [(T0, "0"), (T0 + 9 * S, "8")]
    assert (done.precision, done.recall) == (1.0, 1.0)
    assert (done.delay_p50_s, done.delay_max_s) == (0.5, 1.0)
    best = score([event(0, 10)], [episode(9, 30), episode(1, 10)])
    assert [x.key for _, x in best.pairs] == ["1"] and [x.key for x in best.false] == ["9"]
    assert best.precision == 0.5


def test_only_what_an_event_names_is_paired_with_it() -> None:
    told = [episode(0, 10, zone="yard"), episode(0, 10, rule_id="other")]
    assert score([event(0, 10, zone="lawn")], told).recall == 0.0
    assert score([event(0, 10, camera_id="dock")], told).recall == 0.0
    assert score([event(20, 30)], told).recall == 0.0
    rules = dict(by_rule([event(0, 10)], told))
    assert (rules["r"].precision, rules["r"].recall) == (1.0, 1.0)
    assert (rules["other"].precision, rules["other"].recall) == (0.0, None)


def test_truth_counts_from_the_first_clip_from_1970_or_is_a_date() -> None:
    text = "\ufeffrule,zone,start,end\r\nr,yard,1.5,2\n\nr,,1700000003,2023-11-14T22:13:24.250\n"
    first, second = parse_truth(text, "events.csv", T0, UTC)
    assert (first.start_ns, first.end_ns, first.zone) == (T0 + 3 * S // 2, T0 + 2 * S, "yard")
    assert (second.line, second.start_ns, second.end_ns) == (4, T0 + 3 * S, T0 + 4 * S + S // 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rule,zone,begin,end\n", "events.csv:1: expected the columns"),
        ("rule,zone,start,end\nr,z,soon,2\n", "events.csv:2: start: expected seconds"),
        ("rule,zone,start,end\nr,z,nan,2\n", "events.csv:2: start: expected seconds"),
        ("rule,zone,start,end\nr,z,3,2\n", "events.csv:2: end: expected no time before start"),
        ("rule,zone,start,end\n,z,1,2\n", "events.csv:2: rule: expected a rule_id"),
        ("rule,zone,start,end\nr,z,1\n", "events.csv:2: expected 4 columns, found 3"),
    ],
)
def test_a_fault_of_the_truth_is_named_by_line_and_column(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_truth(text, "events.csv", T0, UTC)
    assert expected in str(raised.value.faults[0])


def test_a_main_stream_clip_counts_only_where_the_sub_stream_does_not_cover_it() -> None:
    def clip(start_s: int, stream: str) -> Video:
        return Video(Path("x.mp4"), ClipId(camera_id="gate", epoch=3, start_ns=T0 + start_s * S), 5 * S, stream)  # type: ignore[arg-type]

    subs = [clip(1, "analyse"), clip(1, "analyse")]
    found = analysed([clip(10, "record"), clip(0, "record"), *subs])
    assert [(v.clip.start_ns - T0, v.stream) for v in found] == [(S, "analyse"), (10 * S, "record")]


def test_folders_give_finished_videos_by_camera(tmp_path: Path) -> None:
    clip = ClipId(camera_id="gate", epoch=3, start_ns=T0)
    (tmp_path / "clips").mkdir()
    for name in (clip_file_name(clip, 5 * S), "gate_3_9.part.mp4", "my yard.mkv", "notes.txt"):
        (tmp_path / "clips" / name).write_bytes(b"")
    found = videos_of(files_in([tmp_path, tmp_path]), T0)
    assert {name: [v.clip.start_ns for v in videos] for name, videos in found.items()} == {
        "gate": [T0],
        "my-yard": [T0],
    }
    assert list(videos_of(files_in([tmp_path / "clips" / "my yard.mkv"]), T0, "dock")) == ["dock"]
    with pytest.raises(OSError):
        files_in([tmp_path / "nowhere"])


def test_a_cache_gives_what_it_was_given_or_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "made", 250)
    assert cache.get("a") is None
    cache.put("a", b"x" * 100)
    assert cache.get("a") == b"x" * 100
    path = tmp_path / "made" / f"a{SUFFIX}"
    path.write_bytes(path.read_bytes()[:-1] + b"y")
    assert cache.get("a") is None
    cache.put("large", b"x" * (ENTRY_MAX + 1))
    assert cache.get("large") is None


def test_what_was_not_used_for_longest_leaves_the_cache_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 300)
    for number, key in enumerate("abc"):
        cache.put(key, b"x" * 100)
        os.utime(tmp_path / f"{key}{SUFFIX}", (number, number))
    cache.get("a")
    cache.tidy()
    assert [key for key in "abc" if cache.get(key)] == ["a", "c"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[rules]]\nrule_id = "r"\nkind = "intrusion"\nzones = []\n', "rules[0].zones"),
        ('[[rules]]\nrule_id = "r"\nkind = "intrusion"\nspeed = 3\n', "rules[0].speed"),
        ('speed = 3\n[[rules]]\nrule_id = "r"\n', "speed"),
        ("", "rules: expected [[rules]]"),
        ("cameras = []\n", "--camera: expected one of the file's cameras"),
    ],
)
def test_a_fault_of_the_rules_is_named_as_the_file_has_it(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "rules.toml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_trial(tmp_path / "rules.toml", Asked(model=MODEL))
    assert any(str(fault).startswith(expected) for fault in raised.value.faults), raised.value.faults
