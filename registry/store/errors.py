"""Why the store does not do what it was asked."""

from __future__ import annotations

from collections.abc import Iterable

from nodeagent.contract.errors import AgentError, Fault


class Stale(AgentError):
    """Somebody else changed it since.  Read it again and decide anew; nothing was written.

    Attributes:
        what: such as `camera gate-1`.
        expected: the version that the caller saw; 0: he expected that there is none.
        found: the one that there is; 0: there is none.
    """

    def __init__(self, what: str, expected: int, found: int) -> None:
        self.what, self.expected, self.found = what, expected, found
        super().__init__(f"{what}: expected {_version(expected)}, found {_version(found)}")


class Unknown(AgentError):
    """There is no such thing.  Never retry.

    Attributes:
        what: such as `camera gate-1`.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what}: there is none")


class Invalid(AgentError):
    """What shall be written cannot be.  Lists every fault; nothing was written."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


def _version(number: int) -> str:
    return f"version {number}" if number else "none"
