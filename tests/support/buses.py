"""Buses of every adapter for tests, on real servers, and a process of its own that uses one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nodeagent.contract.errors import Refused, Unavailable
from nodeagent.infra.bus.connect import open_bus
from nodeagent.infra.bus.inhand import Tell, tell_nobody
from nodeagent.infra.bus.port import Bus, Delivery
from nodeagent.infra.settings.sections import Settings
from tests.support.eventually import eventually
from tests.support.server import Server

ROOT = Path(__file__).parent.parent.parent


def make_bus(
    url: str, node_id: str = "n1", shards: int = 1, confirm_timeout_s: float = 10.0, tell: Tell = tell_nobody
) -> Bus:
    """A bus of the adapter that the URL's scheme asks for."""
    section = {"bus": {"url": url, "heartbeat_s": 2, "confirm_timeout_s": confirm_timeout_s}}
    if not url.startswith("amqp"):
        section = {"redis": {"url": url}}
    settings = Settings.model_validate({"node": {"node_id": node_id}, "judge": {"shards": shards}, **section})
    return open_bus(settings, tell)


@dataclass
class Backend:
    """A broker and the buses that a test opened on it.

    Attributes:
        name: of the adapter.
        server: its server, which a test may kill and start.
        url: what buses connect to.
    """

    name: str
    server: Server
    url: str
    buses: list[Bus] = field(default_factory=list)
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    def bus(self, node_id: str = "n1", **more: Any) -> Bus:
        """A new connection with everything declared."""
        bus = make_bus(self.url, node_id, **more)
        self.buses.append(bus)
        bus.declare()
        return bus

    def child(self, action: str, *arguments: str) -> subprocess.Popen[str]:
        """`tests.support.bus_child` on this broker."""
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.support.bus_child", self.url, action, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.children.append(child)
        return child

    def close(self) -> None:
        """Close every bus and end every child."""
        for child in self.children:
            end(child)
        for bus in self.buses:
            bus.close()


def end(child: subprocess.Popen[str]) -> None:
    """kill -9 a child and close its pipes."""
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


def line(child: subprocess.Popen[str]) -> str:
    """The next line that a child prints."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


def take(bus: Bus, within_s: float = 20.0) -> Delivery:
    """The next delivery; fails when there is none in time."""
    got = eventually(lambda: bus.get(0.5), within_s)
    assert got is not None
    return got


def trying(what: Callable[[], object], within_s: float = 30.0) -> None:
    """Do something as a worker's loop does: again and again while the broker is away."""

    def attempt() -> bool:
        try:
            what()
        except (Unavailable, Refused) as exc:
            raise AssertionError(str(exc)) from exc
        return True

    eventually(attempt, within_s, 0.1)
