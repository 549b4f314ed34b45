"""The docs against the code: what is generated is fresh, what is named exists, what exists is named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import click
import pytest

from nodeagent.cli.main import main
from nodeagent.contract.rule import Rule
from nodeagent.contract.states import State
from registry.cli import main as registry
from tests.architecture.source_tree import ROOT

PAGES = sorted(p for p in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")] if "node_modules" not in p.parts)
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
MAX_ARCHITECTURE_LINES = 200


def commands(group: click.Group, name: str = "nodeagent") -> list[tuple[str, click.Command]]:
    found = []
    context = click.Context(group)
    for sub in group.list_commands(context):
        command = group.get_command(context, sub)
        assert command is not None
        found.append((f"{name} {sub}", command))
        if isinstance(command, click.Group):
            found += commands(command, f"{name} {sub}")
    return found


EVERY = [*commands(main), *commands(registry, "registry")]


def test_generated_pages_are_fresh() -> None:
    made = subprocess.run(
        [sys.executable, "docs/generate_configuration.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stdout + made.stderr


def test_every_command_and_option_is_documented() -> None:
    # The table does not repeat what many commands have; it is told below.
    told = {"nodeagent": {"config", "help"}, "registry": {"config", "help", "urls", "token_file", "ca_file"}}
    for name, command in EVERY:
        row = [line for line in OPERATIONS.splitlines() if f"`{name}" in line]
        if isinstance(command, click.Group) and not command.invoke_without_command:
            continue  # It does nothing itself; its commands are looked for.
        assert row, f"{name} is not in docs/operations.md"
        for option in command.params:
            if isinstance(option, click.Option) and option.name not in told[name.partition(" ")[0]]:
                assert any(part in " ".join(row) for part in option.opts), f"{name} {option.opts} is not documented"


def test_every_command_helps() -> None:
    for name, command in EVERY:
        assert command.help and command.help[0].isupper(), f"{name} has no help"


def test_every_state_is_in_the_operators_page() -> None:
    for state in State:
        assert f"| `{state}` |" in OPERATIONS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_tests_named_in_the_docs_exist() -> None:
    sources = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    defined = {name for text in sources for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
    for page in (ROOT / "docs" / "failure.md", ROOT / "docs" / "time.md"):
        text = page.read_text()
        missing = sorted(set(re.findall(r"`(test_\w+)`", text)) - defined)
        assert not missing, f"{page.name} names tests that do not exist: {missing}"
        for path in re.findall(r"`(tests/[\w/.]+)`", text):
            assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_pages_named_in_the_code_exist() -> None:
    for path in (ROOT / "nodeagent").rglob("*.py"):
        for page in re.findall(r"docs/[\w/-]+\.md", path.read_text()):
            assert (ROOT / page).exists(), f"{path.relative_to(ROOT)} names {page}"


def test_the_chinese_readme_has_the_shape_of_the_english_one() -> None:
    def shape(name: str) -> list[str]:
        text = (ROOT / name).read_text()
        prose = re.sub(r"```.*?```", "```", text, flags=re.DOTALL)
        marks = re.findall(r"^(#+ |\| |- |```)", prose, re.MULTILINE)
        return [mark.strip() for mark in marks]

    def code(name: str) -> list[str]:
        return re.findall(r"```sh\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)

    assert shape("README.md") == shape("README.zh-CN.md")
    strip = [re.sub(r"\s+#.*", "", block) for block in code("README.md")]
    assert strip == [re.sub(r"\s+#.*", "", block) for block in code("README.zh-CN.md")]


def test_the_architecture_page_is_short() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert text.count("\n") <= MAX_ARCHITECTURE_LINES
    packages = {path.parent.name for path in (ROOT / "nodeagent").glob("*/__init__.py")}
    assert all(f"`{name}/`" in text for name in packages), packages


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "demo-cluster", "test", "check", "bench", "dev"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    assert re.findall(r"^make (.+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE) == [
        "dev check-lint check-types check-docs",
        "test",
    ]


@pytest.mark.parametrize("model", get_args(get_args(Rule)[0]), ids=lambda model: model.model_fields["kind"].default)
def test_each_kind_of_rule_has_a_page_with_its_parameters_a_picture_and_what_fools_it(model) -> None:
    kind = model.model_fields["kind"].default
    page = (ROOT / "docs" / "rules" / f"{kind}.md").read_text()
    own = set(model.__annotations__) - {"kind"}
    assert own <= set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)), f"{kind}: a parameter without a row"
    assert "\nFooled by: " in page
    assert page.count("```\n") >= 2
    assert f"(rules/{kind}.md)" in (ROOT / "docs" / "rules.md").read_text()
