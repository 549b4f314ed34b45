"""Lists in parts: each says where the next part begins, by the last key of this one.

By key and not by number, so that what comes and goes meanwhile moves nothing from one part to another.
"""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import parse_qsl, urlencode

from fastapi import Query, Request

#: Rows of a part: as many as asked for, this many at most, and when nothing is said.
ROWS_MOST: Final = 1000
ROWS: Final = 100
#: Longest key, characters.
KEY_MAX: Final = 63

Limit = Annotated[int, Query(ge=1, le=ROWS_MOST, description="Rows at most.")]
After = Annotated[str, Query(max_length=KEY_MAX, description="Begin behind this key.")]
Below = Annotated[int | None, Query(ge=1, lt=2**63, description="Only what is before this one.")]


def next_part(request: Request, name: str, value: str | int | None) -> str | None:
    """Address of the next part: this one's, with the query's `name` set to `value`; None when that is None."""
    if value is None:
        return None
    kept = [(key, text) for key, text in parse_qsl(request.url.query) if key != name]
    return f"{request.url.path}?{urlencode([*kept, (name, value)])}"
