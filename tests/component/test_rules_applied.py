"""`nodeagent rules`: what the judge says that it judges by, against what is wanted of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nodeagent.cli.main import main
from nodeagent.contract.camera import CameraSpec
from nodeagent.contract.rule import Rule
from nodeagent.infra.applied import applied_path, version_of, write_applied
from nodeagent.infra.wanted import Wanted, write_wanted
from tests.component.test_cli_commands import CONFIG
from tests.support.scenarios import crossing, intrusion, rule

SINCE_NS = 1_700_000_000_000_000_000


def spec(*rules: Rule) -> CameraSpec:
    doc = {"camera_id": "gate", "record": {"url": "a.mp4"}, "rules": [one.model_dump() for one in rules]}
    return CameraSpec.model_validate(doc)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "nodeagent.toml"
    path.write_text(CONFIG)
    (tmp_path / "state").mkdir()
    return path


def rules(config: Path, *arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(main, ["rules", "-c", str(config), *arguments])


def lines(result: Result) -> dict[str, dict[str, object]]:
    return {line["rule_id"]: line for line in map(json.loads, result.stdout.splitlines())}


def test_before_the_first_start_the_rules_of_the_file_are_listed_and_no_judge_has_them(config: Path) -> None:
    found = rules(config, "--json")
    assert found.exit_code == 0, found.output
    assert lines(found)["r"] == {
        "camera_id": "gate", "rule_id": "r", "kind": "intrusion", "severity": "warning", "places": ["z"],
        "shadow": False, "version": lines(found)["r"]["version"], "applied": "", "since_ns": None,
    }  # fmt: skip
    assert rules(config, "--applied").exit_code == 1


def test_a_judge_that_lags_is_told_from_one_that_does_not(config: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    old, new = intrusion(), intrusion(enter_s=3.0)
    write_applied(applied_path(state, 0), [spec(old, crossing(), rule("queue"))], SINCE_NS)
    write_wanted(state / "wanted.json", Wanted(1, (spec(new, crossing(), rule("crowd", shadow=True)),)))
    found = rules(config, "--json", "--applied")
    assert found.exit_code == 1
    shown = lines(found)
    assert (shown["no-entry"]["version"], shown["no-entry"]["applied"]) == (version_of(new), version_of(old))
    assert shown["crossing"]["version"] == shown["crossing"]["applied"] == version_of(crossing())
    assert shown["crowd"]["applied"] == ""
    # The judge still has it though nobody wants it.
    assert (shown["queue"]["version"], shown["queue"]["applied"]) == ("", version_of(rule("queue")))
    table = rules(config)
    assert table.exit_code == 0
    assert "crowd, shadow" in table.stdout
    assert "the same" in table.stdout
    write_applied(applied_path(state, 0), [spec(new, crossing(), rule("crowd", shadow=True))], SINCE_NS)
    assert rules(config, "--applied").exit_code == 0
    assert lines(rules(config, "--json", "--camera", "other")) == {}


def test_a_damaged_file_is_named(config: Path, tmp_path: Path) -> None:
    path = applied_path(tmp_path / "state", 0)
    path.parent.mkdir()
    path.write_text('{"cameras": []}')
    found = rules(config)
    assert found.exit_code == 1
    assert found.stderr.startswith("judge-0.json: ")
