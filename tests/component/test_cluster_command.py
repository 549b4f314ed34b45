"""`nodeagent cluster` against a registry that serves over HTTP."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console, RenderableType

from nodeagent.cli.demo_config import MODEL
from nodeagent.cli.main import main
from nodeagent.contract.errors import Unavailable
from nodeagent.contract.ownership import TaskPhase
from nodeagent.infra import watching
from nodeagent.infra.watching import watch
from tests.support.commands import WIDE, Person
from tests.support.eventually import eventually
from tests.support.registry_http import RegistryServing, serving_registry
from tests.support.registry_store import draft, writer

CONFIG = """
[[models]]
name = "person"
file = "{model}"
[registry]
urls = ["{origin}"]
token = "{token}"
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServing]:
    with serving_registry(tmp_path) as serving:
        yield serving


@pytest.fixture
def viewer(registry: RegistryServing, tmp_path: Path) -> Person:
    return Person(registry, tmp_path, "viewer")


def cluster(*arguments: str) -> Result:
    return CliRunner(env=WIDE).invoke(main, ["cluster", *arguments])


def config(folder: Path, origin: str, token: str) -> str:
    path = folder / "nodeagent.toml"
    path.write_text(CONFIG.format(model=MODEL, origin=origin, token=token))
    return str(path)


def test_it_asks_the_registries_of_the_agent(registry: RegistryServing, viewer: Person, tmp_path: Path) -> None:
    registry.report("n1", labels={"site": "north"})
    path = config(tmp_path, registry.origin, registry.secrets["n1"])
    refused = cluster("-c", path)
    assert (refused.exit_code, "needs the role viewer" in refused.output) == (1, True), refused.output
    done = cluster("-c", path, "--token-file", str(viewer.token_file))
    assert done.exit_code == 0, done.output
    assert "registry reg1 leads; nodes: 1 live; cameras: none; all well" in done.output
    assert "site=north" in done.output


def test_problems_come_first_and_make_the_exit_code(registry: RegistryServing, viewer: Person) -> None:
    for camera_id, labels in (("gate", {}), ("yard", {"site": "nowhere"})):
        registry.parts.cameras.make(draft(camera_id, labels=labels), writer())
    registry.core.changed(["yard"])
    registry.give("gate", "n1")
    eventually(lambda: registry.core.assignments("", 10, None, TaskPhase.POOLED))
    options = ["--url", registry.origin, "--token-file", str(viewer.token_file)]
    done = cluster(*options)
    assert done.exit_code == 1, done.output
    assert "1 problem" in done.output
    assert done.output.index("1 camera waits for a node") < done.output.index("Nodes (1)")
    told = cluster(*options, "--json")
    assert (told.exit_code, json.loads(told.stdout)["cluster"]["cameras"]) == (1, {"owned": 1, "pooled": 1})
    assert [node["node_id"] for node in json.loads(told.stdout)["nodes"]] == ["n1"]


def test_who_cannot_be_asked_is_told_apart(registry: RegistryServing, viewer: Person, tmp_path: Path) -> None:
    nobody = cluster("--url", "http://127.0.0.1:1", "--token-file", str(viewer.token_file))
    assert (nobody.exit_code, nobody.output) == (3, "the registry does not answer (ConnectError)\n")
    alone = tmp_path / "alone.toml"
    alone.write_text("")
    assert (cluster("-c", str(alone)).exit_code, cluster("-c", str(tmp_path / "none.toml")).exit_code) == (2, 2)
    assert "there is no [registry]" in cluster("-c", str(alone)).output
    assert cluster("-c", str(alone), "--watch", "--json").exit_code == 2


def test_a_page_that_is_old_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "WATCH_EVERY_S", 0.0)
    pages: list[str | BaseException] = ["first", Unavailable("nobody is there"), "third", KeyboardInterrupt()]

    def page() -> RenderableType:
        got = pages.pop(0)
        if isinstance(got, BaseException):
            raise got
        return got

    screen = io.StringIO()
    watch(page, Console(file=screen, force_terminal=True, width=80))
    shown = screen.getvalue()
    assert shown.index("first") < shown.index("not up to date: nobody is there") < shown.index("third")
    assert pages == []
    pages += [Unavailable("nobody was ever there")]
    with pytest.raises(Unavailable):
        watch(page, Console(file=screen))
