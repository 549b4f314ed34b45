"""The sd_notify protocol, against a real socket in a temporary folder."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.infra.sd_notify import Notifier


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "n"))
        receiver.settimeout(5)
        yield receiver


def test_each_call_is_one_datagram(systemd: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname()})
    notifier.ready()
    notifier.reloading(12.5)
    notifier.stopping()
    got = [systemd.recv(200).decode() for _ in range(3)]
    notifier.close()
    assert got == ["READY=1", "RELOADING=1\nMONOTONIC_USEC=12500000", "STOPPING=1"]


def test_a_status_is_sent_when_it_changes(systemd: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname()})
    for text in ("a", "a", "b"):
        notifier.status(text)
    notifier.close()
    assert [systemd.recv(200), systemd.recv(200)] == [b"STATUS=a", b"STATUS=b"]
    systemd.setblocking(False)
    with pytest.raises(BlockingIOError):
        systemd.recv(200)


def test_the_watchdog_hears_thrice_per_interval(systemd: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "3000000"})
    for tenth in range(30):
        notifier.alive(100 + tenth / 10)
    notifier.close()
    systemd.setblocking(False)
    count = 0
    while True:
        try:
            assert systemd.recv(200) == b"WATCHDOG=1"
        except BlockingIOError:
            break
        count += 1
    assert count == 3


def test_without_systemd_nothing_happens() -> None:
    notifier = Notifier({})
    notifier.ready()
    notifier.alive(1.0)
    assert notifier.watchdog_s == 0.0
    notifier.close()


def test_a_socket_that_nobody_reads_holds_nothing_up(systemd: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "3"})
    for second in range(2000):
        notifier.alive(float(second))
    notifier.close()
    assert systemd.recv(200) == b"WATCHDOG=1"
