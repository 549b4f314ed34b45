"""What a registry can keep of a camera; a configuration whose cameras one takes over may hold nothing else.

Pure.  A registry keeps URLs redacted, beside the encrypted whole, and takes a URL that comes redacted for one whose
secret stays as it is.
"""

from __future__ import annotations

import re
from typing import Final

from pydantic import SecretStr, ValidationError

from nodeagent.contract.camera import StreamSpec, redact_url

#: Longest name of a camera for people, characters.
NAME_MAX: Final = 200
# What `redact_url` leaves of a secret: as the user, and as the value of a parameter.
_MASKED = re.compile(r"://\*\*\*@|=\*\*\*(?=[&;\s]|$)")


def is_masked(url: str) -> bool:
    """Whether a URL is one as it is shown, without its secret."""
    return _MASKED.search(url) is not None


def why_no_name(name: str) -> str:
    """Why a camera's name for people cannot be kept; empty: it can."""
    return "" if len(name) <= NAME_MAX else f"expected at most {NAME_MAX} characters"


def why_no_url(url: str) -> str:
    """Why a stream's URL cannot be kept as a new one; empty: it can, or is no URL of a stream at all."""
    if is_masked(url):
        return (
            "expected the whole URL, user and password included: `***` stands for a secret only while nothing changes"
        )
    if _is_stream(url) and not _is_stream(redact_url(url)):
        return "expected no `@` at its end: it is taken for that of a password"
    return ""


def _is_stream(url: str) -> bool:
    try:
        StreamSpec(url=SecretStr(url))
    except ValidationError:
        return False
    return True
