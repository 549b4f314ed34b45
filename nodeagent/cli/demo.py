"""`nodeagent demo`: the whole main job on this machine, with nothing but what pip installed.

It starts a real agent as a child process, shows its stages at work, kills one of them half-way, and ends with a report.
All that it writes lies in one folder.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click
from rich.console import Console
from rich.live import Live

from nodeagent.alarm.receiver import PushReceiver
from nodeagent.cli.demo_config import DemoPlan, demo_toml
from nodeagent.cli.demo_facts import Watch, find_out
from nodeagent.cli.demo_kill import Killer
from nodeagent.cli.demo_report import balance, headline, not_shown, write_report
from nodeagent.cli.demo_view import Rates, page
from nodeagent.contract.errors import AgentError
from nodeagent.infra.files import write_atomically
from nodeagent.infra.incarnation import SHM_VARIABLE
from nodeagent.infra.storage import init_pool

#: An alarm with a verified replay was pushed.
EXIT_SHOWN = 0
#: None was.
EXIT_NOT_SHOWN = 1
#: Seconds between two looks at the status board.
LOOK_S = 0.5
#: Seconds that the agent gets to drain before it is killed.
STOP_S = 25.0
#: Most cameras that the demo plays: more say nothing more on one machine without a GPU.
MAX_CAMERAS = 16


@click.command()
@click.option("--seconds", default=75.0, show_default=True, type=click.FloatRange(10, 86_400), help="How long to run.")
@click.option("--cameras", default=2, show_default=True, type=click.IntRange(1, MAX_CAMERAS), help="Cameras to play.")
@click.option("--no-kill", is_flag=True, help="Do not kill a stage half-way.")
@click.option("--source", default=None, help="Your own rtsp://... address or video file instead of the shipped clip.")
@click.option(
    "--model",
    default=None,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Description of your own model (TOML) instead of the shipped one.",
)
@click.option(
    "--dir",
    "folder",
    default=None,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for all that the demo writes; made anew.  [default: ./nodeagent-demo-<time>]",
)
def demo(
    seconds: float, cameras: int, no_kill: bool, source: str | None, model: Path | None, folder: Path | None
) -> None:
    """Show the main job on this machine: camera, clips, inference, judge, alarm, replay, push.

    Exits with 0 when an alarm with a verified replay was pushed, else with 1.
    """
    console = Console()
    where = (folder or Path(f"nodeagent-demo-{datetime.now().astimezone():%Y%m%d-%H%M%S}")).resolve()
    if where.exists() and any(where.iterdir()):
        raise click.BadParameter(f"{where} is not empty", param_hint="--dir")
    where.mkdir(parents=True, exist_ok=True)
    # Rings and board too lie in the one folder; an agent in production has them on tmpfs.
    os.environ[SHM_VARIABLE] = str(where / "memory")
    console.print(f"Everything of this run is written to [bold]{where}[/bold]")
    with PushReceiver(secret := secrets.token_hex(16)) as receiver:
        plan = DemoPlan(
            folder=where,
            seconds=seconds,
            cameras=cameras,
            source=_absolute_source(source),
            model=model.resolve() if model else None,
            push_url=receiver.url,
            push_secret=secret,
            registry=_free_address(),
            time_zone=_local_zone(),
        )
        console.print(
            f"While it runs: [bold]http://{plan.registry}/docs[/bold] is its registry's API, and"
            f" `nodeagent cluster -c {plan.config_path}` looks at it",
            highlight=False,
            soft_wrap=True,
        )
        run = DemoRun(plan, receiver, console, kill=not no_kill)
        sys.exit(run.run())


def _absolute_source(source: str | None) -> str | None:
    return str(Path(source).resolve()) if source and "://" not in source else source


def _free_address() -> str:
    """Where nothing listens: the usual port may be a real registry's."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


def _local_zone() -> str:
    """The machine's IANA zone where it can be told, else UTC."""
    try:
        name = str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2]
        return ZoneInfo(name).key if name else "UTC"
    except (OSError, ValueError):
        return "UTC"


class DemoRun:
    """One run: start the agent, watch it, stop it, report."""

    def __init__(self, plan: DemoPlan, receiver: PushReceiver, console: Console, kill: bool) -> None:
        self._plan = plan
        self._console = console
        self._watch = Watch(plan, receiver)
        self._killer = Killer(due_s=plan.seconds / 2) if kill else None
        self._interrupted = False

    def run(self) -> int:
        """Run to the end; return the exit code."""
        # It may hold the password of the reader's camera.
        write_atomically(self._plan.config_path, demo_toml(self._plan).encode(), mode=0o600)
        init_pool(self._plan.pool_dir)
        # Ended or left alone by its terminal, it stops the agent as at Ctrl-C.
        for ending in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(ending, signal.default_int_handler)
        agent = self._start()
        try:
            self._show(agent)
        except KeyboardInterrupt:
            self._interrupted = True
        finally:
            self._stop(agent)
        return self._report()

    def _start(self) -> subprocess.Popen[bytes]:
        log_path = self._plan.folder / "agent.log"
        # A session of its own: Ctrl-C reaches the demo, which then lets the agent drain.
        with log_path.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "nodeagent", "run", "-c", str(self._plan.config_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _show(self, agent: subprocess.Popen[bytes]) -> None:
        zone, rates = ZoneInfo(self._plan.time_zone), Rates()
        started_s = time.monotonic()
        with Live(console=self._console, refresh_per_second=4, transient=False) as live:
            while (past_s := time.monotonic() - started_s) < self._plan.seconds:
                if agent.poll() is not None:
                    self._watch.trouble(
                        f"the agent ended with code {agent.returncode}: see {self._plan.folder}/agent.log"
                    )
                    return
                report = self._watch.look(past_s)
                if report is not None:
                    rates.note(report, past_s)
                    if self._killer is not None:
                        self._watch.say_all(self._killer.step(report, past_s))
                left_s, watch = self._plan.seconds - past_s, self._watch
                live.update(page(report, rates, watch.alarms, watch.events, left_s, zone, time.time_ns()))
                time.sleep(LOOK_S)

    def _stop(self, agent: subprocess.Popen[bytes]) -> None:
        try:
            if agent.poll() is None:
                agent.send_signal(signal.SIGTERM)
                self._console.print("Stopping: the open clips are closed and what is on its way is finished ...")
            agent.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(agent.pid, signal.SIGKILL)
            agent.wait()
        except KeyboardInterrupt:
            self._interrupted = True
            os.killpg(agent.pid, signal.SIGKILL)
            agent.wait()

    def _report(self) -> int:
        kill = self._killer.summary if self._killer is not None else ""
        try:
            outcome = find_out(self._plan, self._watch, kill)
        except AgentError as exc:
            self._console.print(f"[red]No report could be made: {exc}[/red]")
            return EXIT_NOT_SHOWN
        path = write_report(outcome)
        good = outcome.alarm is not None
        self._console.print(f"[bold {'green' if good else 'red'}]{headline(outcome)}[/]", highlight=False)
        for row in outcome.ledger:
            self._console.print(
                f"  {row.camera_id}: clips made {row.clips_made} = announced {row.clips_announced} = judged"
                f" {row.clips_judged}; samples expected {row.samples_expected}, judged {row.samples_judged};"
                f" not recorded {row.gap_s:.1f} s {f'({row.gap_why})' if row.gap_why else ''}",
                highlight=False,
            )
        self._console.print(f"  {balance(outcome.ledger)}")
        for line in [*outcome.problems, *([kill] if kill else [])]:
            self._console.print(f"  {line}", highlight=False)
        self._console.print("Not shown:")
        for line in not_shown(outcome):
            self._console.print(f"  - {line}", highlight=False)
        self._console.print(f"Report: [bold]{path}[/bold]", highlight=False, soft_wrap=True)
        return EXIT_SHOWN if good else EXIT_NOT_SHOWN
