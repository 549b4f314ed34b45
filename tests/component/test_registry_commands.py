"""Commands of `registry` that run to their end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from registry.cli import main


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
    assert "tls.certificate: the certificate and its key cannot be used" in said
