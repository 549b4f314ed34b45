"""Versions as HTTP knows them: an entity tag on what is read, a condition on what is written (RFC 9110, 8.8 and 13).

Whoever changes something says which version he saw, so that nobody's change is lost: without a condition there is 428,
with an old one 412.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Depends, Header, Response

from nodeagent.contract.errors import Fault
from nodeagent.infra.web.problems import Problem
from registry.http.problems import wrong

_TAG = re.compile(r'"([1-9][0-9]{0,18})"')
#: What is expected of a condition.
EXPECTED: Final = 'expected the ETag of the version that you saw, such as "3"'


def tagged(response: Response, version: int) -> None:
    """Name the version in an answer's head."""
    response.headers["ETag"] = f'"{version}"'


def version_in(tag: str, field: str = "If-Match") -> int:
    """The version in an entity tag.

    Raises:
        Problem: it is none of ours.
    """
    found = _TAG.fullmatch(tag.strip())
    if found is None or int(found[1]) >= 2**63:
        raise wrong(field, EXPECTED)
    return int(found[1])


def _missing(expected: str) -> Problem:
    return Problem(HTTPStatus.PRECONDITION_REQUIRED, f"If-Match: {expected}", [Fault("If-Match", expected)])


# Their forms stand in the OpenAPI document only: what is said of a wrong one is said here.
_IfMatch = Annotated[
    str | None,
    Header(description="ETag of the version that you saw.", json_schema_extra={"pattern": f"^{_TAG.pattern}$"}),
]
_IfNoneMatch = Annotated[
    str | None, Header(description="`*`: make it, it must not be there.", json_schema_extra={"enum": ["*"]})
]


async def _seen(if_match: _IfMatch = None) -> int:
    if if_match is None:
        raise _missing(EXPECTED)
    return version_in(if_match)


async def _seen_or_new(if_match: _IfMatch = None, if_none_match: _IfNoneMatch = None) -> int:
    """The version that the caller saw; 0: it must not be there yet."""
    if if_match is not None:
        return version_in(if_match)
    if if_none_match is None:
        raise _missing(f"{EXPECTED}, or `If-None-Match: *` to make it")
    if if_none_match.strip() != "*":
        raise wrong("If-None-Match", "expected `*`")
    return 0


async def _seen_perhaps(if_match: _IfMatch = None) -> int | None:
    return None if if_match is None else version_in(if_match)


Seen = Annotated[int, Depends(_seen)]
SeenOrNew = Annotated[int, Depends(_seen_or_new)]
SeenPerhaps = Annotated[int | None, Depends(_seen_perhaps)]
