"""What a recorder tells of time that it did, or did not, record."""

from __future__ import annotations

from typing import Protocol

from nodeagent.infra.gaps import GapReason


class Account(Protocol):
    """The account of one stream.

    Attributes:
        accounted_ns: up to here all is told; capture times go on above it.
    """

    accounted_ns: int

    def outage(self, reason: GapReason, detail: str, now_ns: int) -> None:
        """From now on nothing is recorded, for this reason, until a clip begins."""
        ...

    def begin(self, start_ns: int) -> None:
        """A clip begins: what lies before it is a gap."""
        ...

    def end(self, end_ns: int) -> None:
        """A clip ended."""
        ...

    def lost(self, from_ns: int, to_ns: int, reason: GapReason, detail: str) -> None:
        """Time that was told as recorded is not."""
        ...

    def tick(self, now_ns: int) -> None:
        """Called every second or so while nothing is recorded."""
        ...


class Unkept:
    """The account of a sub-stream: what the main stream recorded is what counts, so nobody is told of its gaps."""

    def __init__(self, accounted_ns: int) -> None:
        self.accounted_ns = accounted_ns

    def outage(self, reason: GapReason, detail: str, now_ns: int) -> None:
        """Not told."""

    def begin(self, start_ns: int) -> None:
        """Not told."""

    def end(self, end_ns: int) -> None:
        """The next clip begins after this."""
        self.accounted_ns = max(self.accounted_ns, end_ns)

    def lost(self, from_ns: int, to_ns: int, reason: GapReason, detail: str) -> None:
        """Not told."""

    def tick(self, now_ns: int) -> None:
        """Not told."""
