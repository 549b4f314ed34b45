"""The operator's commands against a registry that serves over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nodeagent.contract.ownership import LEASE_S, TaskPhase, Unfinished
from nodeagent.contract.states import State
from registry.cli import main
from registry.commands import orders
from registry.commands.operator import OPERATOR
from registry.draining import DrainState
from registry.http.ports import NodeStanding, NotLeader
from tests.support.commands import WIDE, Person
from tests.support.eventually import eventually
from tests.support.registry_http import RegistryServing, serving_registry
from tests.support.registry_store import PASSWORD, draft, rule, writer

CAMERAS = """
[[cameras]]
camera_id = "gate"
record = { url = "rtsp://viewer:hunter2@gate.example/main" }
[[cameras]]
camera_id = "yard"
record = { url = "rtsp://viewer:hunter2@yard.example/main" }
"""
DOCK = """
[[cameras]]
camera_id = "dock"
record = { url = "dock.mp4" }
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServing]:
    with serving_registry(tmp_path) as serving:
        yield serving


@pytest.fixture
def admin(registry: RegistryServing, tmp_path: Path) -> Person:
    return Person(registry, tmp_path)


def site(registry: RegistryServing) -> None:
    """Two nodes; the camera `gate` on n1, `yard` waits for a node that there is not."""
    values: dict[str, dict[str, Any]] = {
        "gate": {"rules": [rule().model_dump()], "labels": {"site": "north"}},
        "yard": {"name": "[bold]Hof[/x]", "labels": {"site": "nowhere"}},
    }
    for camera_id, more in values.items():
        registry.parts.cameras.make(draft(camera_id, group="north/hall-1", **more), writer())
    registry.core.changed(values)
    registry.report("n1", labels={"site": "north"})
    eventually(lambda: len(registry.core.assignments("", 10, None, TaskPhase.OWNED)) == 1)
    eventually(lambda: len(registry.core.assignments("", 10, None, TaskPhase.POOLED)) == 1)
    registry.report("n2", labels={"site": "north", "gpu": "l4"})


def test_lists_are_tables_and_json_without_any_secret(registry: RegistryServing, admin: Person) -> None:
    site(registry)
    shown = {name: admin.run(name).output for name in ("nodes", "cameras", "assignments", "rules")}
    assert "gpu=l4" in shown["nodes"]
    assert "serves 0 of 1" in shown["nodes"]
    assert "rtsp://***@gate.example" in shown["cameras"]
    assert "[bold]Hof[/x]" in shown["cameras"]
    assert "waits for a node" in shown["assignments"]
    assert "no-entry" in shown["rules"]
    assert [node["node_id"] for node in admin.answer("nodes")] == ["n1", "n2"]
    assert [camera["camera_id"] for camera in admin.answer("cameras", "--label", "site=north")] == ["gate"]
    assert [camera["camera_id"] for camera in admin.answer("cameras", "--enabled")] == ["gate", "yard"]
    assert [camera["camera_id"] for camera in admin.answer("cameras", "--group", "north", "--text", "HOF")] == ["yard"]
    assert admin.answer("cameras", "--disabled") == []
    assert [place["camera_id"] for place in admin.answer("assignments", "--phase", "pooled")] == ["yard"]
    assert [place["camera_id"] for place in admin.answer("assignments", "--node", "n1")] == ["gate"]
    assert [line["version"] for line in admin.answer("rules", "gate")] == [1]
    assert PASSWORD not in str(shown) + admin.run("cameras", "--json").output


def test_owners_of_the_past_are_listed(registry: RegistryServing, admin: Person) -> None:
    admin.run("assignments", "--camera", "gate", expect=1)
    site(registry)
    admin.run("move", "gate", "n2")

    def owners() -> list[str]:
        return [past["owner"]["node_id"] for past in admin.answer("assignments", "--camera", "gate")]

    # Written behind.
    eventually(lambda: owners() == ["n2", "n1"])
    shown = admin.run("assignments", "--camera", "gate").output
    assert "Owners of gate (2)" in shown
    assert "moved by admin" in shown
    admin.run("assignments", "--camera", "gate", "--node", "n1", expect=2)


def test_a_camera_is_explained_and_moved(registry: RegistryServing, admin: Person) -> None:
    site(registry)
    told = admin.run("explain", "gate").output
    assert "camera gate is on n1" in told
    assert "owns it" in told
    assert admin.answer("explain", "gate", "--limit", "1")["considered"] == 2
    assert "and 1 more" in admin.run("explain", "gate", "--limit", "1").output
    assert admin.run("move", "gate", "n2").output.startswith("camera gate is n2's, epoch ")
    assert admin.answer("move", "gate", "n1")["node_id"] == "n1"
    assert "node n9: there is none" in admin.run("move", "gate", "n9", expect=1).output
    assert "expected letters" in admin.run("move", "../gate", "n1", expect=2).output


def test_a_drain_is_waited_for(registry: RegistryServing, admin: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    site(registry)

    looks, node = threading.Event(), registry.core.desk.node

    def look(node_id: str) -> NodeStanding:
        found: NodeStanding = node(node_id)
        looks.set()
        return found

    def seen() -> None:
        """The command has looked at what is now."""
        for _ in range(2):
            looks.clear()
            assert looks.wait(10)

    def others() -> None:
        eventually(lambda: (owner := registry.core.owner("gate")) is not None and owner.node_id == "n2")
        # The source is open, and nothing came of it yet.
        registry.capture("gate", State.CONNECTING)
        eventually(lambda: node("n1").drain.state is DrainState.STARTING)
        seen()
        registry.report("n1", unfinished=Unfinished(cameras=0, clips=1, detections=0, alarms=0))
        registry.capture("gate")
        seen()
        registry.report("n1")

    other = threading.Thread(target=others)
    other.start()
    with monkeypatch.context() as patched:
        patched.setattr(registry.core, "node", look, raising=False)
        patched.setattr(orders, "LOOK_EVERY_S", 0.05)
        done = admin.run("drain", "n1", "--wait")
    other.join()
    assert done.stdout == "node n1 drains by order of admin: no camera left, nothing waits on it\n"
    assert "no camera left, others start 1 of 1\n" in done.stderr
    assert "no camera left, waits for 1 clip to look at\n" in done.stderr
    assert [place["camera_id"] for place in admin.answer("assignments", "--node", "n2")] == ["gate"]
    assert "node n1 is " in admin.run("undrain", "n1").output
    eventually(lambda: admin.answer("nodes")[0]["drain"] is None)


def test_waiting_ends_without_success_where_nobody_knows_what_waits(registry: RegistryServing, admin: Person) -> None:
    # An agent of before this was told.
    registry.report("n1", unfinished=None)
    done = admin.run("drain", "n1", "--wait", expect=1)
    assert done.stderr.endswith("no camera left; what waits on it is not told by its agent 1\n")
    assert not done.stdout
    # One that dies: what waited may be lost with its disk.
    registry.report("n1", unfinished=Unfinished(cameras=0, clips=0, detections=0, alarms=1))
    registry.pass_s(LEASE_S + 1)
    eventually(lambda: admin.answer("nodes")[0]["phase"] == "dead")
    done = admin.run("drain", "n1", "--wait", "--forced", expect=1)
    assert "but it died: what waited on it waits there until it is started again" in done.stderr
    assert admin.answer("nodes")[0]["drain"]["state"] == "lost"


def test_waiting_ends_when_somebody_takes_the_drain_back(
    registry: RegistryServing, admin: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.parts.cameras.make(draft("gate"), writer())
    registry.give("gate", "n1")
    asked = threading.Event()

    def away(_node_id: str) -> NodeStanding:
        asked.set()
        raise NotLeader("")

    def take_back() -> None:
        eventually(lambda: registry.core.node("n1").drain is not None)
        # Registries that are away meanwhile end nothing.
        with monkeypatch.context() as patched:
            patched.setattr(registry.core, "node", away)
            asked.wait(10)
        registry.core.undrain("n1", "berta", None)

    other = threading.Thread(target=take_back)
    other.start()
    done = admin.run("drain", "n1", "--forced", "--wait", expect=1)
    other.join()
    assert "node n1 drains by order of admin: 1 camera left" in done.stderr
    assert "waiting: the registry does not answer (status 503: no registry leads now)" in done.stderr
    assert done.stderr.endswith("the order to drain node n1 was taken back\n")


def test_a_drain_without_room_must_be_forced(registry: RegistryServing, admin: Person, tmp_path: Path) -> None:
    registry.parts.cameras.make(draft("gate"), writer())
    registry.give("gate", "n1")
    assert "cannot take 1 of 1 cameras" in admin.run("drain", "n1", expect=1).output
    operator = Person(registry, tmp_path, "operator")
    assert "needs the role admin" in operator.run("drain", "n1", "--forced", expect=1).output
    assert "1 camera left" in admin.run("drain", "n1", "--forced").output
    eventually(lambda: "drains by order of admin" in admin.run("nodes").output)


def test_only_a_dead_node_is_forgotten(registry: RegistryServing, admin: Person) -> None:
    registry.report("n1")
    assert "dead" in admin.run("forget", "n1", expect=1).output
    registry.pass_s(2 * LEASE_S + 1)
    assert [node["phase"] for node in admin.answer("nodes", "--phase", "dead")] == ["dead"]
    assert admin.run("forget", "n1").output == "node n1 is forgotten\n"
    assert "node n1: there is none" in admin.run("forget", "n1", expect=1).output


def test_a_freeze_is_ended(registry: RegistryServing, admin: Person) -> None:
    registry.report("n1", "n2", "n3", "n4")
    registry.pass_s(2 * LEASE_S + 1)
    ended = admin.run("thaw").output
    assert ended.startswith("evictions go on; they were held: ")
    assert "fell silent together" in ended
    assert admin.answer("thaw") == {"thawed": False, "reason": ""}


def test_an_import_says_what_it_made_changed_and_left_alone(
    registry: RegistryServing, admin: Person, tmp_path: Path
) -> None:
    file = tmp_path / "cameras.toml"
    file.write_text(CAMERAS)
    assert admin.run("import", str(file)).output == "made: 2 (gate, yard)\nchanged: 0\nleft alone: 0\n"
    kept = registry.parts.cameras.get_many(["gate"], reveal=True)["gate"]
    assert kept.spec.record.url.get_secret_value() == "rtsp://viewer:hunter2@gate.example/main"
    assert admin.answer("import", str(file)) == {"made": [], "changed": [], "same": ["gate", "yard"]}

    file.write_text(CAMERAS.replace("yard.example", "yard-2.example") + DOCK)
    refused = admin.run("import", str(file), expect=1).output
    assert "--overwrite" in refused
    assert registry.parts.cameras.get_many(["dock"]) == {}
    done = admin.run("import", str(file), "--overwrite").output
    assert done == "made: 1 (dock)\nchanged: 1 (yard)\nleft alone: 1 (gate)\n"


def test_an_import_leaves_what_the_file_does_not_say(registry: RegistryServing, admin: Person, tmp_path: Path) -> None:
    registry.parts.cameras.make(draft("gate", enabled=False, group="north", labels={"gpu": "l4"}), writer())
    file = tmp_path / "cameras.toml"
    file.write_text(CAMERAS)
    assert admin.answer("import", str(file), "--overwrite") == {"made": ["yard"], "changed": ["gate"], "same": []}
    row = registry.parts.cameras.get("gate")
    assert (row.enabled, row.group, dict(row.labels)) == (False, "north", {"gpu": "l4"})


def test_a_faulty_file_is_not_sent(registry: RegistryServing, admin: Person, tmp_path: Path) -> None:
    file = tmp_path / "cameras.toml"
    file.write_text(CAMERAS.replace("yard", "gate") + "sample_fps = 99\nnmae = 'x'\n")
    done = admin.run("import", str(file), expect=2).output
    assert f"{file}: 3 faults" in done
    for path in ("cameras[1].camera_id", "cameras[1].sample_fps", "cameras[1].nmae"):
        assert path in done
    assert PASSWORD not in done
    assert registry.parts.cameras.page().rows == ()
    assert "cannot be read" in admin.run("import", str(tmp_path / "none.toml"), expect=2).output


def test_who_may_not_is_told_why(registry: RegistryServing, tmp_path: Path) -> None:
    node, viewer = Person(registry, tmp_path, "n1"), Person(registry, tmp_path, "viewer")
    assert "needs the role viewer" in node.run("nodes", expect=1).output
    assert "needs the role operator" in viewer.run("thaw", expect=1).output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--url", "ftp://x:hunter2@y"], 2, "--url: expected http://host:8450"),
        (["--url", "http://127.0.0.1:1"], 3, "the registry does not answer (ConnectError)"),
        (["--token-file", "none"], 2, "--token-file: none cannot be read: No such file or directory"),
        (["--ca-file", "none"], 2, "--ca-file: none: no certificates to trust"),
        (["--watch", "--json"], 2, "exclude each other"),
    ],
)
def test_options_that_cannot_be_are_named(
    registry: RegistryServing, admin: Person, arguments: list[str], code: int, said: str
) -> None:
    env = WIDE | {"REGISTRY_URL": registry.origin, "REGISTRY_TOKEN_FILE": str(admin.token_file)}
    done = CliRunner(env=env).invoke(main, ["nodes", *arguments])
    assert (done.exit_code, said in done.output, "hunter2" in done.output) == (code, True, False), done.output


def test_options_may_stand_in_the_environment(registry: RegistryServing, admin: Person) -> None:
    env: dict[str, Any] = WIDE | {"REGISTRY_URL": f"http://127.0.0.1:1 {registry.origin}"}
    assert "--token-file: required" in CliRunner(env=env).invoke(main, ["nodes"]).output
    done = CliRunner(env=env | {"REGISTRY_TOKEN_FILE": str(admin.token_file)}).invoke(main, ["nodes"])
    assert (done.exit_code, "Nodes (0)" in done.output) == (0, True), done.output


@pytest.mark.parametrize("name", OPERATOR)
def test_every_command_says_how_it_reaches_the_registries(name: str) -> None:
    helped = CliRunner(env=WIDE).invoke(main, [name, "--help"]).output
    for word in ("--url", "REGISTRY_URL", "--token-file", "REGISTRY_TOKEN_FILE", "--ca-file"):
        assert word in helped
