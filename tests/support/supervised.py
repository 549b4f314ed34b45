"""An agent whose workers are those of `tests.support.workers`, as a subprocess."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.settings.sections import Settings
from tests.support.agent import Agent
from tests.support.eventually import eventually

ROOT = Path(__file__).parent.parent.parent


def config_text(folder: Path, cameras: Sequence[str], stop_timeout_s: float = 8.0, more: str = "") -> str:
    """A configuration with these cameras; `name=path` gives a camera another source than the usual one."""
    text = f'[node]\nnode_id = "n1"\nstate_dir = "{folder / "state"}"\nstop_timeout_s = {stop_timeout_s}\n{more}\n'
    text += '[[models]]\nname = "m"\nfile = "m.toml"\n'
    for camera in cameras:
        name, _, source = camera.partition("=")
        text += f'[[cameras]]\ncamera_id = "{name}"\nrecord = {{ url = "{source or "a.mp4"}" }}\n'
    return text


class Supervised(Agent):
    """Runs the test's workers; `environment` is added to the process's, `launcher` is a program that executes it."""

    def __init__(
        self, folder: Path, config: str, environment: dict[str, str] | None = None, launcher: Sequence[str] = ()
    ) -> None:
        super().__init__(folder, config)
        self._launcher = launcher
        self._environment = environment or {}
        self._settings = load_settings(self.config_path)

    @property
    def settings(self) -> Settings:
        """Its configuration as it was at first: a test may make the file faulty."""
        return self._settings

    def start(self) -> None:
        """Start it; returns at once."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._launcher, sys.executable, "-m", "tests.support.workers", str(self.config_path)],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def state_dir(self) -> Path:
        """Its state folder."""
        return self.folder / "state"

    def log(self) -> str:
        """All that it wrote."""
        return self.log_path.read_text(errors="replace")

    def wait_log(self, text: str, within_s: float = 20.0) -> None:
        """Wait until it wrote `text`."""

        def written() -> bool:
            assert text in self.log(), f"no {text!r} in:\n{self.log_tail()}"
            return True

        eventually(written, within_s=within_s)

    def pids(self) -> dict[str, int]:
        """Every child that has a process."""
        return {row.name: row.pid for row in self.rows() if row.pid}

    def tree(self) -> list[int]:
        """Every process of the agent's session, zombies left out: helpers of multiprocessing too."""
        assert self.process is not None
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == self.process.pid and fields[0] not in "ZX":
                found.append(int(stat.parent.name))
        return found

    def fork_server(self) -> int:
        """The fork server's pid."""
        for pid in self.tree():
            if b"multiprocessing.forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes():
                parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent == self.pid:
                    return pid
        raise AssertionError("no fork server")

    def signal(self, number: signal.Signals) -> None:
        """Signal the supervisor."""
        os.kill(self.pid, number)
