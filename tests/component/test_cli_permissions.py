"""What an ordinary user is told who looks at an agent of another one."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from nodeagent.cli.demo_config import CLIP, MODEL
from nodeagent.cli.main import main

#: A user without rights, for a session that runs as root.
NOBODY = 65534

CONFIG = """
[node]
state_dir = "{private}/state"
[[pool]]
path = "{private}/disk"
[[models]]
name = "person"
file = "{model}"
[[cameras]]
camera_id = "gate"
record = {{ url = "{private}/a.mp4" }}
"""


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture
def closed() -> Iterator[Path]:
    """A configuration whose folders only another user may enter; this process is an ordinary user meanwhile."""
    # Not in pytest's own folder, which is private.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        private, config = folder / "private", folder / "nodeagent.toml"
        private.mkdir()
        config.write_text(CONFIG.format(private=private, model=MODEL))
        shutil.copy(CLIP, private / "a.mp4")
        # What the commands import lazily may lie where an ordinary user cannot look.
        assert run("config", "check", name + "/nodeagent.toml")[0] == 0
        assert run("clips", "-c", name + "/nodeagent.toml")[0] == 0
        assert run("alarms", "-c", name + "/nodeagent.toml")[0] == 0
        private.chmod(0o000)
        was = os.geteuid()
        os.seteuid(NOBODY if was == 0 else was)
        try:
            yield config
        finally:
            os.seteuid(was)
            private.chmod(0o700)


@pytest.mark.parametrize("command", [["config", "check"], ["clips", "-c"], ["alarms", "-c"]])
def test_a_folder_that_may_not_be_entered_is_one_line(closed: Path, command: list[str]) -> None:
    code, output = run(*command, str(closed))
    assert code == 1
    (line,) = output.splitlines()
    assert line.startswith(f"{closed.parent}/private/")
    assert "Permission denied" in line
