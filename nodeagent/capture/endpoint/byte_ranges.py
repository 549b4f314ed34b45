"""HTTP byte ranges and conditions (RFC 9110, 13 and 14).  Pure.

One range per request: who asks for several gets the whole, as the RFC allows.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import NamedTuple

from nodeagent.contract.ids import NS_PER_S

_RANGE = re.compile(r"(?i)\s*bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*")


class Slice(NamedTuple):
    """Bytes `[first, end)` of a resource."""

    first: int
    end: int


def slice_of(header: str | None, size: int) -> Slice | None:
    """What to send of `size` bytes; None when the range lies behind the end (416).

    Without a header, or with one that is no single range of bytes, that is everything.
    """
    whole = Slice(0, size)
    match = _RANGE.fullmatch(header) if header else None
    if match is None or not (match[1] or match[2]):
        return whole
    if not match[1]:
        last = int(match[2])
        return Slice(max(0, size - last), size) if last and size else None
    first = int(match[1])
    end = min(size, int(match[2]) + 1) if match[2] else size
    if match[2] and int(match[2]) < first:
        return whole
    return Slice(first, end) if first < size else None


def http_date(ns: int) -> str:
    """UTC ns as a header's date, to the second."""
    return format_datetime(datetime.fromtimestamp(ns // NS_PER_S, UTC), usegmt=True)


def same(if_range: str | None, etag: str, modified: str) -> bool:
    """Whether a range may be sent: the `If-Range` header is absent, or names what is here."""
    return if_range is None or if_range.strip() in (etag, modified)


def unchanged(if_none_match: str | None, if_modified_since: str | None, etag: str, modified: str) -> bool:
    """Whether the client has it already (304)."""
    if if_none_match is not None:
        tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
        return "*" in tags or etag in tags
    if if_modified_since is None:
        return False
    try:
        return parsedate_to_datetime(modified) <= parsedate_to_datetime(if_modified_since)
    except (ValueError, TypeError):
        return False
