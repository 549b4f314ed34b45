"""`registry demo-cluster`: what two registries and two agents do when one of each is killed, on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path

import click
from rich.console import Console

from nodeagent.contract.errors import AgentError, Unavailable
from nodeagent.infra.embedded_redis import EmbeddedRedis
from nodeagent.infra.exits import ExitCode
from nodeagent.infra.incarnation import SHM_VARIABLE
from registry.demo.cluster import Cluster
from registry.demo.course import Course, Shown
from registry.demo.plan import REGISTRIES, Plan

#: Most cameras that the demo plays: more show nothing more on one machine without a GPU.
MAX_CAMERAS = 8
#: A private Redis that does not answer by then does not at all, seconds.
REDIS_S = 10.0


@click.command()
@click.option("--cameras", default=4, show_default=True, type=click.IntRange(2, MAX_CAMERAS), help="Cameras to play.")
@click.option(
    "--dir",
    "folder",
    default=None,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for all that the demo writes, which is kept.  [default: a temporary one, removed when all went well]",
)
def demo_cluster(cameras: int, folder: Path | None) -> None:
    """Show two registries and two agents on this machine: one agent is killed, started again, then the leader is.

    Exit code: 0 every camera was captured by exactly one node at the end, 1 not, or something did not begin.
    """
    console = Console(highlight=False)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    where = _folder(folder)
    console.print(f"Everything of this run is written to {where}", soft_wrap=True)
    try:
        with _running(where, cameras) as cluster:
            shown = Course(cluster, console).run()
    except (AgentError, KeyboardInterrupt) as exc:
        why = str(exc) or "interrupted"
        console.print(f"\nNot shown: {why}\nLogs: {where}", style="bold red", markup=False, soft_wrap=True)
        sys.exit(ExitCode.PROBLEMS)
    console.print(f"\n{_sentence(cameras, shown)}", style="bold green", markup=False, soft_wrap=True)
    if folder is None:
        shutil.rmtree(where, ignore_errors=True)


def _folder(folder: Path | None) -> Path:
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="nodeagent-cluster-"))
    if folder.exists() and any(folder.iterdir()):
        raise click.BadParameter(f"{folder} is not empty", param_hint="--dir")
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


@contextmanager
def _running(folder: Path, cameras: int) -> Iterator[Cluster]:
    """A cluster, none of whose programs runs yet, on a Redis that does; all is ended when it is left.

    Raises:
        Unavailable: there is no Redis.
    """
    redis = EmbeddedRedis(folder / "redis")
    plan = Plan(
        folder=folder,
        material=Path(str(files("nodeagent"))) / "demo",
        cameras=cameras,
        ports=dict(zip(REGISTRIES, _free_ports(len(REGISTRIES)), strict=True)),
        redis_socket=redis.socket_path,
    )
    # Rings, boards and temporary files too lie in the one folder; in production the first two are on tmpfs.
    os.environ[SHM_VARIABLE] = str(folder / "memory")
    cluster = Cluster(plan, {**os.environ, "TMPDIR": str(folder)})
    with ExitStack() as stack:
        held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, held)
        stack.callback(redis.stop)
        redis.start(held)
        cluster.until("the private Redis answers", REDIS_S, redis.answers)
        stack.callback(cluster.end)
        yield cluster


def _free_ports(number: int) -> list[int]:
    """Ports that nobody listens on now; all are open at once, so that none comes twice.

    Raises:
        Unavailable: there are none.
    """
    with ExitStack() as stack:
        try:
            opened = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        except OSError as exc:
            raise Unavailable(f"no free port: {exc}") from exc
        return [one.getsockname()[1] for one in opened]


def _sentence(cameras: int, shown: Shown) -> str:
    anew = f"{shown.started_anew or 'no'} capture{'s were' if shown.started_anew > 1 else ' was'}"
    return (
        f"Shown: {shown.orphans} of {cameras} cameras of a killed node were captured by the other one, the last"
        f" {shown.longest_s:.1f} s after the kill; the node came back; the leading registry was killed, the other led"
        f" after {shown.lead_s:.1f} s and {anew} started anew; each camera is captured by exactly one node."
        " Not shown: alarms, which need RabbitMQ between several nodes, and servers that are apart."
    )
