"""A whole agent as a subprocess, started as an operator would start it, and what a test asks of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from nodeagent.contract.errors import AgentError
from nodeagent.contract.report import ChildRow, NodeReport, Phase
from nodeagent.infra.board import Board
from nodeagent.infra.incarnation import live_board_path
from nodeagent.infra.settings.loader import load_settings
from nodeagent.infra.settings.sections import Settings
from tests.support.eventually import eventually

#: The demo's model.
MODEL = Path(__file__).parent.parent.parent / "nodeagent" / "demo" / "person_demo.toml"
#: Seconds within which an agent must be up on a busy machine.
START_S = 60.0
#: Seconds within which it must be gone after TERM.
STOP_S = 40.0


def whole_node(node_id: str, *sections: str) -> str:
    """Configuration of an agent whose workers are all real, with clips of two seconds; further sections follow."""
    text = f'[node]\nnode_id = "{node_id}"\nstate_dir = "state"\n[capture]\nclip_s = 2\n'
    text += '[[pool]]\npath = "pool"\nreserve_gb = 0\n'
    return "\n".join([text, f'[[models]]\nname = "person"\nfile = "{MODEL}"', *sections, ""])


def of_registries(redis_url: str, urls: Sequence[str], token: str) -> str:
    """The sections of an agent that these registries give cameras to."""
    listed = ", ".join(f'"{url}"' for url in urls)
    return f'[redis]\nurl = "{redis_url}"\n[registry]\nurls = [{listed}]\ntoken = "{token}"'


class Agent:
    """`nodeagent run` on the TOML text `config`, in `folder`.

    Attributes:
        folder: everything of this agent but its tmpfs folder.
        config_path: its TOML; `rewrite` changes it, `hup` has it read again.
        log_path: its standard output and error.
    """

    def __init__(self, folder: Path, config: str, within: Sequence[str] = ()) -> None:
        """`within`: what is written before its command, so that it runs somewhere else (`namespaces`)."""
        self._within = within
        self.folder = folder
        self.config_path = folder / "nodeagent.toml"
        self.log_path = folder / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.rewrite(config)

    def __enter__(self) -> Agent:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is not None:
            print(self.log_tail(), file=sys.stderr)
        self.stop()

    @property
    def settings(self) -> Settings:
        """Its configuration as it stands in the file."""
        return load_settings(self.config_path)

    @property
    def pid(self) -> int:
        """The supervisor's pid."""
        assert self.process is not None, "not started"
        return self.process.pid

    def rewrite(self, config: str) -> None:
        """Put another text into its TOML."""
        self.config_path.write_text(config, encoding="utf-8")

    def start(self) -> None:
        """Start it; returns at once."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._within, sys.executable, "-m", "nodeagent", "run", "-c", str(self.config_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> int | None:
        """TERM, wait, and KILL if need be; return the exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def hup(self) -> None:
        """Have it read its TOML again."""
        os.kill(self.pid, signal.SIGHUP)

    def kill9(self) -> None:
        """Kill the supervisor alone; its children have to notice."""
        assert self.process is not None, "not started"
        self.process.kill()
        self.process.wait()

    def report(self) -> NodeReport | None:
        """What its status board shows; none while there is no board."""
        path = live_board_path(self.settings.node.state_dir)
        if path is None:
            return None
        try:
            return Board.open(path).report(time.monotonic(), "", "")
        except AgentError:
            return None

    def row(self, name: str) -> ChildRow | None:
        """The board's row of one child."""
        report = self.report()
        return next((row for row in report.rows if row.name == name), None) if report else None

    def rows(self) -> Iterator[ChildRow]:
        """All rows of the board."""
        report = self.report()
        yield from report.rows if report else ()

    def running(self, name: str, not_pid: int = 0, within_s: float = START_S) -> ChildRow:
        """Wait until a child runs (with another pid than `not_pid`) and return its row."""

        def check() -> ChildRow | None:
            row = self.row(name)
            return row if row and row.phase is Phase.RUNNING and row.pid and row.pid != not_pid else None

        found = eventually(check, within_s=within_s)
        assert found is not None
        return found

    def log_tail(self, lines: int = 60) -> str:
        """The last lines of its log."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
