"""The limit of open files of this process."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger(__name__)


def raise_limit() -> None:
    """Use all that the system allows: the usual soft limit of 1024 is enough for 335 children, or for as many agents
    that keep their connections.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        # systemd sets both, and forbids a registry the call.
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as exc:
        # A container's hard limit may be above what its kernel gives (fs.nr_open).
        log.warning("open files stay limited to %d: %s", soft, exc, extra={"event": "open_files"})
