"""Hosts of their own on one machine: network namespaces around a router, whose roads can be cut one way or both.

    with Hosts(["n1", "n2"], services=["redis"]) as hosts:
        Popen([*hosts.within("n1"), ...]); connect to hosts.address("redis")
        hosts.cut("n1", "redis")

Hosts are namespaces; services stay where the test runs, each with an address of its own, so that the road to one of
them can be cut alone.  Every packet passes the router.  What is lost is lost in silence, as behind a switch that died:
the router has a rule per pair and direction whose route is a black hole.  Connections that are open stay open and hear
nothing.  Needs root and iproute2; nothing outlives the process that made it (see `server`).
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tests.support.missing import not_tested
from tests.support.server import GUARD

#: Addresses for benchmarks of networks (RFC 2544): no real network has them.  Each `Hosts` takes a /24 of it.
RANGE = ipaddress.ip_network("198.18.0.0/16")
#: In a /24, hosts have the first addresses, four each; the services have those from this one on.
_SERVICES_FROM = 192
#: Longest name of an interface.
_NAME_MAX = 15
_numbers = itertools.count(1)


class _Refused(Exception):
    """`ip` did not do it; the message is what it said."""


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise _Refused(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _why_not() -> str:
    """Why there can be no namespaces here; empty when there can."""
    if shutil.which("ip") is None:
        return "no iproute2: python tests/install_services.py"
    if os.geteuid() != 0:
        return "network namespaces take root"
    probe = f"na{os.getpid()}-probe"
    try:
        _ip("netns", "add", probe)
        _ip("-n", probe, "link", "set", "lo", "up")
        _ip("-n", probe, "rule", "add", "from", "198.18.0.1", "to", "198.18.0.2", "blackhole")
    except _Refused as exc:
        return f"network namespaces are not permitted here: {exc}"
    finally:
        with suppress(_Refused):
            _ip("netns", "delete", probe)
    return ""


def need_namespaces() -> None:
    """Fail in CI, skip loudly elsewhere, where no namespaces can be made."""
    why = _why_not()
    if why:
        not_tested(why)


class Hosts:
    """The hosts, the services and the router between them, from `with` until its end.

    Processes that run within a host must be gone before the end.
    """

    def __init__(self, hosts: Sequence[str], services: Sequence[str] = ()) -> None:
        """`hosts`: up to 47 names; `services`: up to 62 names of what listens where the test runs."""
        self._id = f"na{os.getpid()}x{next(_numbers)}"
        self._router = f"{self._id}-router"
        self._hosts, self._services = list(hosts), list(services)
        self._net = ipaddress.ip_network("198.18.0.0/24")
        #: The test's end of its link to the router.
        self._own = self._id[-_NAME_MAX:]
        self._lost: set[tuple[str, str]] = set()

    def __enter__(self) -> Hosts:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._remove()

    def address(self, name: str) -> str:
        """Address of a host or of a service."""
        return str(self._address(name))

    def within(self, name: str) -> list[str]:
        """What to write before a command so that it runs on a host; the process is the command's own."""
        return ["ip", "netns", "exec", self._space(name)]

    def deafen(self, name: str, to: str) -> None:
        """Lose whatever `to` sends to `name`; what `name` sends goes on."""
        self._lose(to, name)

    def cut(self, one: str, other: str) -> None:
        """Lose whatever two send each other."""
        self._lose(one, other)
        self._lose(other, one)

    def heal(self) -> None:
        """Lose nothing any more."""
        for pair in list(self._lost):
            _ip("-n", self._router, "rule", "delete", *self._rule(*pair))
            self._lost.discard(pair)

    def _lose(self, sender: str, receiver: str) -> None:
        if (sender, receiver) not in self._lost:
            _ip("-n", self._router, "rule", "add", *self._rule(sender, receiver))
            self._lost.add((sender, receiver))

    def _rule(self, sender: str, receiver: str) -> list[str]:
        return ["from", self.address(sender), "to", self.address(receiver), "blackhole"]

    def _address(self, name: str) -> ipaddress.IPv4Address:
        if name in self._services:
            return self._net[_SERVICES_FROM + 1 + self._services.index(name)]
        return self._net[4 * self._slot(name) + 2]

    def _slot(self, name: str) -> int:
        """Number of a host's four addresses; the first four are the test's own, which has no name."""
        return 0 if not name else 1 + self._hosts.index(name)

    def _space(self, name: str) -> str:
        return f"{self._id}-{name}"

    def _link(self, name: str) -> str:
        """The router's end of a host's link; the names of the test's two ends differ from all of these."""
        return f"to{self._slot(name)}"

    def _make(self) -> None:
        self._net = _free_net()
        GUARD.tell("space", self._router)
        _ip("netns", "add", self._router)
        _ip("-n", self._router, "link", "set", "lo", "up")
        own = self._own
        _ip("link", "add", own, "type", "veth", "peer", "name", self._link(""), "netns", self._router)
        self._join([], own, "")
        _ip("route", "add", str(self._net), "via", str(self._net[1]))
        for name in self._services:
            _ip("address", "add", f"{self.address(name)}/32", "dev", own)
        services = ipaddress.ip_network((int(self._net[_SERVICES_FROM]), 26))
        _ip("-n", self._router, "route", "add", str(services), "via", str(self._net[2]))
        for name in self._hosts:
            self._add(name)
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        subprocess.run([*self.within("router"), "sh", "-c", forward], check=True)

    def _add(self, name: str) -> None:
        space = self._space(name)
        GUARD.tell("space", space)
        _ip("netns", "add", space)
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", self._link(name), "netns", self._router)
        self._join(["-n", space], "eth0", name)
        _ip("-n", space, "route", "add", "default", "via", str(self._net[4 * self._slot(name) + 1]))

    def _join(self, space: list[str], link: str, name: str) -> None:
        """Address both ends of a link and switch them on."""
        first = 4 * self._slot(name)
        _ip(*space, "address", "add", f"{self._net[first + 2]}/30", "dev", link)
        _ip("-n", self._router, "address", "add", f"{self._net[first + 1]}/30", "dev", self._link(name))
        _ip(*space, "link", "set", link, "up")
        _ip("-n", self._router, "link", "set", self._link(name), "up")

    def _remove(self) -> None:
        """Undo all of it, also when only a part was made."""
        with suppress(_Refused):
            # The kernel takes its time to clear a namespace away, and this link has an address of the machine's own.
            _ip("link", "delete", self._own)
        for space in [*map(self._space, self._hosts), self._router]:
            if Path("/run/netns", space).exists():
                _ip("netns", "delete", space)
            GUARD.tell("left", space)


def _free_net() -> ipaddress.IPv4Network:
    """A /24 that nothing on this machine uses; drawn, so that two that look at once seldom take the same."""
    taken = _ip("route", "show", "table", "all")
    free = [net for net in RANGE.subnets(new_prefix=24) if f"{net.network_address}/" not in taken]
    return random.choice(free)
