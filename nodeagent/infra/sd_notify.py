"""What the agent tells systemd: ready, reloading, stopping, alive, and one sentence for `systemctl status`.

Without a socket from systemd every call does nothing.  A lost datagram is no fault: the watchdog's is sent again.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

#: Microseconds in a second: systemd counts in them.
US_PER_S = 1_000_000
#: Systemd advises to report twice per watchdog interval; a third leaves room for one slow turn of the loop.
WATCHDOG_SHARE = 1 / 3


class Notifier:
    """Speaks the sd_notify protocol."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for an abstract address.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if address else None
        usec = environment.get("WATCHDOG_USEC", "")
        #: Seconds between two reports that the loop runs; 0 when nobody waits for them.
        self.watchdog_s = int(usec) / US_PER_S * WATCHDOG_SHARE if address and usec.isdigit() else 0.0
        self._status = ""
        self._alive_at_s = float("-inf")

    def ready(self) -> None:
        """The service does its work; also the end of a reload."""
        self._send("READY=1")

    def reloading(self, monotonic_s: float) -> None:
        """A reload begins; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(monotonic_s * US_PER_S)}")

    def stopping(self) -> None:
        """The drain begins."""
        self._send("STOPPING=1")

    def status(self, sentence: str) -> None:
        """One sentence on how things are; sent when it differs from the last one."""
        if sentence != self._status:
            self._status = sentence
            self._send(f"STATUS={sentence}")

    def alive(self, now_s: float) -> None:
        """Called by the loop at every turn; reports as often as systemd wants it."""
        if self.watchdog_s and now_s - self._alive_at_s >= self.watchdog_s:
            self._alive_at_s = now_s
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(text.encode(), socket.MSG_DONTWAIT, self._address)
        except OSError:
            # Its queue is full or systemd restarts: never a reason to hold up the loop.
            return
