"""`nodeagent backtest` on real H.264: the same episodes however it was cut, and no inference the second time."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest
from click.testing import CliRunner, Result

from nodeagent.cli.demo_config import CLIP, MODEL
from nodeagent.cli.main import main
from nodeagent.contract.clip import ClipId, clip_file_name
from nodeagent.inference.onnx_engine import OnnxEngine
from nodeagent.infra.video import ns_of

S = 1_000_000_000
T0 = 1_700_000_000 * S + 37_000_000
#: So much of the shipped video is judged, seconds.
SECONDS = 12

RULES = """
[[rules]]
rule_id = "seen"
kind = "intrusion"
labels = ["person"]
exit_s = 0.4
cooldown_s = 0.0
zones = [
  { name = "left", polygon = [[0, 0], [0.3, 0], [0.3, 1], [0, 1]] },
  { name = "middle", polygon = [[0.4, 0], [0.6, 0], [0.6, 1], [0.4, 1]] },
]
"""


def cut(folder: Path, at_least_s: float) -> list[Path]:
    """The video as clips that begin at key frames, each at least so long."""
    folder.mkdir()
    with av.open(str(CLIP)) as source:
        stream = source.streams.video[0]
        base = stream.time_base
        packets = [p for p in source.demux(stream) if p.pts is not None and p.pts * base < SECONDS]
        parts: list[list[av.Packet[av.VideoStream]]] = []
        for packet in packets:
            if not parts or (packet.is_keyframe and (packet.pts - parts[-1][0].pts) * base >= at_least_s):
                parts.append([])
            parts[-1].append(packet)
        found = []
        for number, part in enumerate(parts):
            first = part[0].pts
            end = parts[number + 1][0].pts if number + 1 < len(parts) else max(p.pts for p in part)
            clip = ClipId(camera_id="gate", epoch=1, start_ns=T0 + ns_of(first, base))
            path = folder / clip_file_name(clip, ns_of(end - first, base))
            with av.open(str(path), "w") as target:
                track = target.add_stream_from_template(stream)
                track.time_base = base
                for packet in part:
                    packet.pts, packet.dts, packet.stream = packet.pts - first, packet.dts - first, track
                    target.mux(packet)
            found.append(path)
    return found


def run(tmp_path: Path, *args: object) -> Result:
    rules = tmp_path / "rules.toml"
    if not rules.exists():
        rules.write_text(RULES)
    words = ["backtest", "--rules", rules, "--model", MODEL, "--cache", tmp_path / "cache", "--json", *args]
    return CliRunner().invoke(main, [str(word) for word in words])


def lines(result: Result, what: str) -> list[dict[str, object]]:
    return [doc for doc in map(json.loads, result.stdout.splitlines()) if doc["what"] == what]


def told(result: Result) -> list[dict[str, object]]:
    return [{name: value for name, value in doc.items() if name != "until_ns"} for doc in lines(result, "episode")]


def test_the_cut_changes_nothing_and_the_second_time_no_model_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, many = cut(tmp_path / "one", 1000), cut(tmp_path / "many", 1)
    assert len(one) == 1 and len(many) > 2
    whole, parts = run(tmp_path, tmp_path / "one"), run(tmp_path, tmp_path / "many")
    assert (whole.exit_code, parts.exit_code) == (0, 0), whole.output + parts.output
    assert told(whole) and told(whole) == told(parts)
    assert lines(parts, "summary")[0]["inferred"] == len(many)

    def refuse(*_: object) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(OnnxEngine, "__init__", refuse)
    again = run(tmp_path, tmp_path / "many")
    assert again.exit_code == 0, again.output
    assert told(again) == told(parts)
    assert (lines(again, "summary")[0]["inferred"], lines(again, "summary")[0]["cached"]) == (0, len(many))

    # Scored against itself, every episode is there and nothing else.
    rows = [
        f"{d['rule_id']},{d['zone']},{(d['started_ns'] - T0) / S},{(d['until_ns'] - T0) / S}"
        for d in lines(again, "episode")
    ]  # type: ignore[operator]
    (tmp_path / "events.csv").write_text("\n".join(["rule,zone,start,end", *rows]))
    scored = lines(run(tmp_path, "--truth", tmp_path / "events.csv", tmp_path / "many"), "score")[0]
    assert (scored["precision"], scored["recall"], scored["missed"], scored["false"]) == (1.0, 1.0, [], [])


def test_a_damaged_clip_is_told_and_the_others_are_judged(tmp_path: Path) -> None:
    clips = cut(tmp_path / "many", 1)
    clips[1].write_bytes(b"no video")
    result = run(tmp_path, tmp_path / "many")
    assert result.exit_code == 1
    assert [doc["path"] for doc in lines(result, "unknown")] == [str(clips[1])]
    assert told(result)
    assert lines(result, "summary")[0]["inferred"] == len(clips) - 1


def test_faults_are_named_and_exit_with_usage(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run(tmp_path, tmp_path / "empty").exit_code == 1
    (tmp_path / "events.csv").write_text("rule,zone,start,end\nseen,left,soon,2\n")
    result = run(tmp_path, "--truth", tmp_path / "events.csv", CLIP)
    assert result.exit_code == 2 and f"{tmp_path / 'events.csv'}: 1 fault" in result.stderr
    assert "events.csv:2: start: expected seconds" in result.stderr
    (tmp_path / "rules.toml").write_text(RULES.replace('"person"', '"persons"'))
    result = run(tmp_path, CLIP)
    assert result.exit_code == 2 and "rules[0].labels[0]: expected one of the model's labels" in result.stderr
