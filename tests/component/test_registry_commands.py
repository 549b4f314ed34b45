"""Commands of `registry` that run to their end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from registry.cli import main
from tests.support.eventually import eventually
from tests.support.registry_http import RegistryServing, serving_registry
from tests.support.registry_store import PASSWORD, draft, url, writer
from tests.support.services import free_port


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "registry.toml"
    path.write_text(f'[registry]\nregistry_id = "reg1"\nstate_dir = "{tmp_path}/state"\n')
    return path


def registry(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_tokens_are_made_listed_and_revoked(file: Path) -> None:
    made = registry("token", "create", "anna", "--role", "viewer", "-c", file)
    secret = made.stdout.strip()
    assert made.exit_code == 0
    assert "it is shown this once" in made.stderr
    assert registry("token", "create", "n1", "--node", "n1", "-c", file).exit_code == 0
    listed = registry("token", "list", "--json", "-c", file)
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert (rows["anna"]["role"], rows["anna"]["revoked"]) == ("viewer", None)
    assert (rows["n1"]["role"], rows["n1"]["node_id"]) == (None, "n1")
    assert secret.rsplit("_", 1)[1] not in listed.stdout
    assert registry("token", "revoke", rows["anna"]["token_id"], "-c", file).exit_code == 0
    rows = {row["name"]: row for row in json.loads(registry("token", "list", "--json", "-c", file).stdout)}
    assert rows["anna"]["revoked"]
    assert rows["n1"]["revoked"] is None
    assert "anna" in registry("token", "list", "-c", file).stdout


def test_a_token_that_cannot_be_made_or_revoked_says_why(file: Path) -> None:
    none = registry("token", "revoke", "0" * 16, "-c", file)
    assert (none.exit_code, none.stderr) == (1, f"token {'0' * 16}: there is none\n")
    for wrong in ("x", "x --node n1 --role admin", "x/y --role admin", "x --node ../n1"):
        assert registry("token", "create", *wrong.split(), "-c", file).exit_code == 2
    file.write_text("[registry]\nport = 0\n")
    faulty = registry("token", "list", "-c", file)
    assert faulty.exit_code == 2
    assert "registry.port" in faulty.stderr


def test_a_thaw_needs_a_registry_and_a_token() -> None:
    url = f"http://anna:secret@127.0.0.1:{free_port()}"
    away = registry("thaw", "--url", url, "--token", "nreg_x")
    assert away.exit_code == 1
    assert "ConnectError" in away.stderr
    assert "secret" not in away.stderr
    assert registry("thaw", "--url", url).exit_code == 1


def test_a_service_that_cannot_begin_says_why(file: Path, tmp_path: Path) -> None:
    # In a process of its own: it takes signals and the log.
    def serve(more: str) -> tuple[int, str]:
        file.write_text(f'[registry]\nregistry_id = "reg1"\nstate_dir = "{tmp_path}/state"\n{more}')
        line = [sys.executable, "-c", "from registry.cli import main; main()", "serve", "-c", str(file)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr

    code, said = serve('host = "192.0.2.1"\n')
    assert code == 2
    assert "registry.port: cannot listen on 192.0.2.1" in said
    (tmp_path / "key").write_text("no key")
    code, said = serve(f'[tls]\ncertificate = "{tmp_path}/key"\nkey = "{tmp_path}/key"\n')
    assert code == 2
    assert "tls.certificate" in said


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[RegistryServing]:
    with serving_registry(tmp_path / "served") as made:
        made.report("n1")
        yield made


def ask(serving: RegistryServing, *arguments: str | Path, who: str = "admin") -> Result:
    return registry(*arguments, "--url", serving.origin, "--token", serving.secrets[who])


def test_lists_are_tables_for_people_and_json_for_programs(serving: RegistryServing) -> None:
    serving.parts.cameras.make(draft("gate-1"), writer())
    serving.parts.cameras.make(draft("gate-2", labels={"site": "nowhere"}), writer())
    serving.core.changed(["gate-1", "gate-2"])
    serving.give("gate-1", "n1")
    eventually(lambda: len(serving.core.assignments("", 10, None, None)) == 2)
    nodes = ask(serving, "nodes")
    assert nodes.exit_code == 0, nodes.stderr
    for word in ("reg1 leads", "1 cameras have a node, 1 wait for one", "n1", "live"):
        assert word in nodes.stdout
    found = json.loads(ask(serving, "nodes", "--json").stdout)
    assert [(node["node_id"], node["owns"]) for node in found["nodes"]] == [("n1", 1)]
    places = ask(serving, "assignments").stdout
    assert "gate-1" in places
    assert "waits" in places
    pooled = json.loads(ask(serving, "assignments", "--phase", "pooled", "--json").stdout)
    assert [place["camera_id"] for place in pooled] == ["gate-2"]
    assert "would be chosen again" in ask(serving, "explain", "gate-1").stdout
    none = ask(serving, "explain", "nobody")
    assert (none.exit_code, none.stderr) == (1, "camera nobody: there is none\n")
    assert ask(serving, "nodes", "--json", "--watch").exit_code == 2


def test_cameras_are_imported_all_or_none(serving: RegistryServing, tmp_path: Path) -> None:
    file = tmp_path / "cameras.toml"
    one = '[[cameras]]\ncamera_id = "gate-1"\ngroup = "north"\nlabels = { site = "n" }\n'
    one += f'record = {{ url = "{url()}" }}\n'
    two = '[[cameras]]\ncamera_id = "gate-2"\nenabled = false\nrecord = { url = "rtsp://h/2" }\n'
    file.write_text(one + two + "[node]\n")
    done = ask(serving, "import", file)
    assert (done.exit_code, done.stdout) == (0, "2 cameras made, 0 changed, 0 as they were\n"), done.stderr
    listed = {row["camera_id"]: row for row in json.loads(ask(serving, "cameras", "--json").stdout)}
    assert (listed["gate-1"]["group"], listed["gate-1"]["labels"]) == ("north", {"site": "n"})
    assert not listed["gate-2"]["enabled"]
    table = ask(serving, "cameras").stdout
    assert "disabled" in table
    assert PASSWORD not in table
    assert serving.parts.cameras.get("gate-1", reveal=True).spec.record.url.get_secret_value() == url()
    # A list that is longer than one part comes whole.
    many = "".join(f'[[cameras]]\ncamera_id = "c{n:04}"\nrecord = {{ url = "rtsp://h/{n}" }}\n' for n in range(1200))
    file.write_text(many)
    assert ask(serving, "import", file).exit_code == 0
    assert len(json.loads(ask(serving, "cameras", "--json").stdout)) == 1202
    file.write_text(one.replace("north", "south"))
    assert ask(serving, "import", file).exit_code == 1
    assert ask(serving, "import", "--overwrite", file).stdout == "0 cameras made, 1 changed, 0 as they were\n"
    assert ask(serving, "import", file, who="viewer").exit_code == 1
    file.write_text(two.replace("rtsp://h/2", "carrier://h/2"))
    faulty = ask(serving, "import", file)
    assert faulty.exit_code == 1
    assert "cameras[0].spec.record.url" in faulty.stderr
    file.write_text("[cameras]\n")
    assert ask(serving, "import", file).exit_code == 2
