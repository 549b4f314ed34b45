"""The benchmark runner: its lines, its exit codes, its comparison and the tables it writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.bench import __main__ as runner
from tests.bench.harness import Compared, Result, compare, result, table, write_table

GOOD = result("speed", 0.97123, "ratio", ">= 0.95", "a / b")
BAD = result("memory", 90.0, "MB", "<= 50")


def put_subject(monkeypatch: pytest.MonkeyPatch, name: str, run: Callable[[bool], Iterator[Result]]) -> None:
    module = ModuleType(f"tests.bench.{name}")
    module.__dict__["run"] = run
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture(autouse=True)
def made_up_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(quick: bool) -> Iterator[Result]:
        yield GOOD
        raise RuntimeError("no camera at hand")

    put_subject(monkeypatch, "good", lambda quick: iter([result("quick", float(quick), "bool")]))
    put_subject(monkeypatch, "bad", lambda quick: iter([BAD, GOOD]))
    put_subject(monkeypatch, "broken", broken)
    monkeypatch.setattr(runner, "subjects", lambda: ["bad", "broken", "good"])


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_result_is_one_line_with_six_fields() -> None:
    assert json.loads(GOOD.line()) == {
        "name": "speed",
        "value": 0.97123,
        "unit": "ratio",
        "aim": ">= 0.95",
        "ok": True,
        "detail": "a / b",
    }


@pytest.mark.parametrize(
    ("value", "aim", "ok"),
    [
        (0.95, ">= 0.95", True),
        (0.94, ">= 0.95", False),
        (1.05, "<= 1.05", True),
        (1.06, "<= 1.05", False),
        (0, "== 0", True),
        (1, "== 0", False),
        (2, "> 2", False),
        (1, "< 2", True),
        (5, "", True),
    ],
)
def test_an_aim_decides(value: float, aim: str, ok: bool) -> None:
    assert result("x", value, "", aim).ok is ok


@pytest.mark.parametrize("aim", ["fast", "0.95", ">=0.95", ">= x", "=> 1"])
def test_an_aim_that_cannot_be_checked_is_refused(aim: str) -> None:
    with pytest.raises(ValueError, match="an aim is"):
        result("x", 1.0, "", aim)


def test_every_aim_met_is_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["good", "--quick"]) == 0
    assert [line["value"] for line in lines(capsys)] == [1.0]
    assert runner.main(["good"]) == 0
    assert [line["value"] for line in lines(capsys)] == [0.0]


def test_an_unmet_aim_is_printed_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["bad", "good"]) == 1
    assert [line["ok"] for line in lines(capsys)] == [False, True, True]


def test_a_broken_subject_hides_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["broken", "good"]) == 1
    seen = capsys.readouterr()
    assert [json.loads(line)["name"] for line in seen.out.splitlines()] == ["speed", "quick"]
    assert "no camera at hand" in seen.err


@pytest.mark.parametrize("arguments", [["nothing", "good"], []])
def test_an_unknown_or_missing_name_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(arguments) == 2
    assert "there are: bad, broken, good" in capsys.readouterr().err


def test_list_and_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["--list"]) == 0
    assert capsys.readouterr().out.split() == ["bad", "broken", "good"]
    assert runner.main(["--all"]) == 1
    assert [line["name"] for line in lines(capsys)] == ["memory", "speed", "speed", "quick"]


def test_files_of_the_folder_are_the_subjects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for name in ("b_two.py", "a_one.py", "harness.py", "__main__.py", "_part.py", "notes.md"):
        (tmp_path / name).touch()
    assert runner.subjects(tmp_path) == ["a_one", "b_two"]
    assert "ring_vs_memcpy" in runner.subjects()


def test_write_makes_a_section_and_then_replaces_it(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "performance.md"
    assert runner.main(["bad", "--write"], page) == 1
    assert runner.main(["good", "--write"], page) == 0
    first = page.read_text()
    assert first.startswith("# Performance\n\n## bad\n\n<!-- bench:bad -->\n`python -m tests.bench bad`\n")
    assert "| memory | 90 MB | <= 50 | **no** |  |\n| speed | 0.9712 ratio | >= 0.95 | yes | a / b |" in first
    page.write_text(first.replace("## bad", "## Memory\n\nWords of a person.") + "\nThe end.\n")
    assert runner.main(["bad", "--write"], page) == 1
    second = page.read_text()
    assert second.count("<!-- bench:bad -->") == second.count("<!-- bench:good -->") == 1
    assert "Words of a person." in second
    assert second.endswith("\nThe end.\n")


def test_without_write_no_page_is_touched(tmp_path: Path) -> None:
    runner.main(["good"], tmp_path / "performance.md")
    assert not (tmp_path / "performance.md").exists()


def test_a_table_survives_bars_and_backslashes(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    odd = result("a|b", 1.0, "s", detail=r"\1 and \g<0>" + "\nnext")
    for _ in range(2):
        write_table(page, "odd", [odd])
    assert r"| a\|b | 1 s | - | yes | \1 and \g<0> next |" in page.read_text()
    assert table("odd", [odd]) in page.read_text()


def test_compare_takes_the_best_round_of_each_and_interleaves() -> None:
    now, order = [0.0], []
    costs = {"a": iter([9.0, 4.0, 2.0, 3.0]), "b": iter([9.0, 5.0, 6.0, 7.0])}

    def way(name: str) -> Callable[[], None]:
        def run() -> None:
            order.append(name)
            now[0] += next(costs[name])

        return run

    seen = compare(way("a"), way("b"), rounds=3, timer=lambda: now[0])
    assert seen == Compared(a_s=2.0, b_s=5.0, rounds=3)
    assert (seen.cost, seen.speed) == (0.4, 2.5)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
