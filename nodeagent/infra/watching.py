"""A page that is drawn anew every second until Ctrl-C, out of what another program answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from nodeagent.contract.errors import Unavailable

#: Seconds between two pages.
WATCH_EVERY_S: Final = 1.0


def watch(page: Callable[[], RenderableType], console: Console | None = None) -> None:
    """Draw until Ctrl-C.  While nobody answers, the last page stays with the reason why it is old.

    Raises:
        Unavailable: nobody answers for the first page.
    """
    shown = page()
    try:
        with Live(shown, console=console, auto_refresh=False, vertical_overflow="visible") as live:
            while True:
                time.sleep(WATCH_EVERY_S)
                try:
                    shown = page()
                    live.update(shown, refresh=True)
                except Unavailable as exc:
                    live.update(Group(shown, Text(f"not up to date: {exc}", style="bold red")), refresh=True)
    except KeyboardInterrupt:
        return
