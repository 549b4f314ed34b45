"""What `status` says of the last reload.  Pure."""

from __future__ import annotations

from dataclasses import replace

from nodeagent.cli.status_view import Problem, StatusView
from nodeagent.supervisor.reload_note import ReloadNote

#: Faults that are shown; the log has them all.
FAULTS_SHOWN = 3
HINT = "all runs on as before: correct the file (`nodeagent config check`), then `systemctl reload nodeagent`"


def with_reload(view: StatusView, note: ReloadNote | None) -> StatusView:
    """The view with a refused reload among its problems."""
    if note is None or not note.refused:
        return view
    others = len(note.refused) - FAULTS_SHOWN
    cause = "\n".join(note.refused[:FAULTS_SHOWN]) + (f"\nand {others} more" if others > 0 else "")
    problem = Problem("configuration", "reload refused", note.at_ns, cause, HINT, 0)
    return replace(view, problems=tuple(sorted((*view.problems, problem), key=lambda p: (p.since_ns, p.name))))


def restart_line(note: ReloadNote | None) -> str:
    """A line about sections that wait for a restart; empty when none does."""
    if note is None or not note.needs_restart:
        return ""
    sections = ", ".join(f"[{name}]" for name in note.needs_restart)
    return f"needs restart: {sections}: changed in the file, in effect after `systemctl restart nodeagent`"
