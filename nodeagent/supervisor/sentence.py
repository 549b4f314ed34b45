"""How the node is, in one sentence for `systemctl status`.  Pure."""

from __future__ import annotations

from collections.abc import Iterable

from nodeagent.contract.report import Kind, Phase
from nodeagent.supervisor.decide import ChildView

#: More names than this are counted instead.
NAMED_MAX = 5


def sentence(children: Iterable[ChildView], draining: bool) -> str:
    """What runs and what does not."""
    views = list(children)
    cameras = [view for view in views if view.want.kind is Kind.CAPTURE]
    others = [view for view in views if view.want.kind is not Kind.CAPTURE]
    text = f"cameras: {_up(cameras)} of {len(cameras)} run; workers: {_up(others)} of {len(others)} run"
    down = sorted(view.want.name for view in views if view.phase in (Phase.BACKOFF, Phase.FATAL))
    if down:
        rest = f" and {len(down) - NAMED_MAX} more" if len(down) > NAMED_MAX else ""
        text += f"; down: {', '.join(down[:NAMED_MAX])}{rest}"
    return f"draining; {text}" if draining else text


def workers_ready(children: Iterable[ChildView]) -> bool:
    """Whether every child but the captures is able to work; a camera that is away is no fault of the node."""
    others = [view for view in children if view.want.kind is not Kind.CAPTURE]
    return bool(others) and all(view.phase is Phase.RUNNING for view in others)


def _up(views: list[ChildView]) -> int:
    return sum(view.phase is Phase.RUNNING for view in views)
