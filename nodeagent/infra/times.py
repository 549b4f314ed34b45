"""Times as a person reads and writes them.  Pure: now and the zone are handed in.

Storage and messages are in UTC nanoseconds; only here they become the site's local time and back.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from nodeagent.contract.ids import NS_PER_S

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGO = re.compile(r"^(\d+(?:\.\d+)?)\s*([smhd])$")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def local_time(ns: int, zone: ZoneInfo) -> str:
    """UTC ns as the site's date and time, to the second."""
    return (_EPOCH + timedelta(microseconds=ns // 1000)).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """A duration in its two largest units: `3 s`, `4 min 05 s`, `2 h 10 min`, `3 d 4 h`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def parse_time(text: str, zone: ZoneInfo, now_ns: int) -> int:
    """UTC ns of `2026-11-24 08:30` (site's time unless it carries an offset), `08:30` today, or `10m` ago.

    Raises:
        ValueError: none of these.
    """
    ago = _AGO.match(text.strip())
    if ago:
        return now_ns - round(float(ago[1]) * _UNITS_S[ago[2]] * NS_PER_S)
    today = (_EPOCH + timedelta(microseconds=now_ns // 1000)).astimezone(zone).date().isoformat()
    written = f"{today} {text.strip()}" if re.match(r"^\d{1,2}:\d{2}", text.strip()) else text.strip()
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        raise ValueError(f"{text!r}: expected `2026-11-24 08:30`, `08:30` or `10m` (ago)") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
