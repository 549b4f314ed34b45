"""URLs as a person writes them into a configuration.

Pure.  The easy mistake: the errors of `urlsplit` quote user, password and host, and so do those of the libraries that
get a URL later.  They stop here: whatever this module raises is a fixed text.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final
from urllib.parse import SplitResult, urlsplit

from pydantic_core import PydanticCustomError

#: What people get wrong most, whatever the scheme.
HINT: Final = "plain ASCII `:`, `/` and `@` between the parts; in a user or password they are written %3A, %2F and %40"
#: Schemes of what lies on this machine: a path and no host.
LOCAL: Final = frozenset({"unix", "sqlite"})
#: Schemes whose URL names something behind the host.
NAMED: Final = LOCAL | {"mysql", "mysql+pymysql"}

#: Schemes of video that comes over a network.
SOURCES: Final = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https")

# The colon of a Chinese keyboard, too: such a text is no path of a file, and may hold a password.
_SOURCE = re.compile(rf"(?i)\s*({'|'.join(SOURCES)})\s*[:：]")


def meant_as_source(text: str) -> bool:
    """Whether somebody wanted to write the URL of a network source, well or badly."""
    return _SOURCE.match(text) is not None


def bad_url(form: str) -> PydanticCustomError:
    """The fault of a URL that should look like `form`.  It never says what stands there."""
    return PydanticCustomError("url", f"expected {form}; {HINT}")


def split_url(url: str, form: str) -> SplitResult:
    """The parts of a URL, of which host and port can be read without an error.

    Raises:
        PydanticCustomError: they cannot; says that `form` was expected.
    """
    try:
        parts = urlsplit(url)
        # Reading it is what finds a port that is no number.
        well = parts.port != 0
    except ValueError:
        well = False
    if not well:
        raise bad_url(form)
    return parts


def check_url(url: str, form: str, schemes: Collection[str]) -> None:
    """Check the URL of a peer.

    Raises:
        PydanticCustomError: another scheme than `schemes`, no host or path where the scheme needs one, an unreadable
            port, or an `@` in the password, which libraries take for its end.
    """
    parts = split_url(url, form)
    well = (
        url.startswith(tuple(f"{scheme}://" for scheme in schemes))
        and bool(parts.hostname) is (parts.scheme not in LOCAL)
        and (parts.scheme not in NAMED or parts.path.strip("/") != "")
        and parts.netloc.count("@") <= 1
    )
    if not well:
        raise bad_url(form)
