"""Times as the endpoint reads and writes them.  Pure.

A site's own time is never guessed: whoever asks over a network may live in another zone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from nodeagent.contract.ids import NS_PER_MS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Digits of a time in ns, from 2001 to 2286.  With fewer somebody wrote seconds or milliseconds.
DIGITS = 19
#: What is expected of a time.
EXPECTED = "expected UTC nanoseconds (19 digits) or ISO 8601 with Z or an offset, such as 2026-11-24T08:30:00Z"


def parse_moment(text: str) -> int:
    """UTC ns of 19 digits, or of a date and time in ISO 8601 with an offset.

    Raises:
        ValueError: neither.
    """
    written = text.strip()
    if written.isascii() and written.isdigit():
        if len(written) != DIGITS or int(written) >= 2**63:
            raise ValueError(EXPECTED)
        return int(written)
    try:
        # A `+` that nobody escaped arrives as a space.
        moment = datetime.fromisoformat(written.replace(" ", "+") if "T" in written else written)
        if moment.tzinfo is None:
            raise ValueError(EXPECTED)
        ns = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, OverflowError):
        raise ValueError(EXPECTED) from None
    if not 0 <= ns < 2**63:
        raise ValueError(EXPECTED)
    return ns


def iso(ns: int) -> str:
    """UTC ns as ISO 8601 with milliseconds: `2026-11-24T08:30:00.000Z`."""
    moment = _EPOCH + timedelta(milliseconds=ns // NS_PER_MS)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
