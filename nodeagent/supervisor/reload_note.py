"""What the last reload came to, for `nodeagent status`: a file in the state folder, while there is something to say.

The supervisor alone writes it; its start and every good reload make it go.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from nodeagent.contract.ids import Frozen, UtcNs
from nodeagent.infra.files import write_atomically

#: Its name in the state folder.
NOTE = "reload.json"


class ReloadNote(Frozen):
    """A reload that was refused, or that left something for the next start."""

    #: Wall clock, UTC ns, of the reload.
    at_ns: UtcNs
    #: The faults that kept the file from being taken, free of secrets; empty when it was taken.
    refused: tuple[str, ...] = ()
    #: Sections that differ from what runs and are read at a start only.
    needs_restart: tuple[str, ...] = ()


def write_note(state_dir: Path, note: ReloadNote) -> None:
    """Replace what was noted; a note that says nothing goes.

    Raises:
        OSError: the state folder cannot be written.
    """
    if note.refused or note.needs_restart:
        write_atomically(state_dir / NOTE, note.model_dump_json().encode(), mode=0o640)
    else:
        (state_dir / NOTE).unlink(missing_ok=True)


def read_note(state_dir: Path) -> ReloadNote | None:
    """What is noted; none when all is as the file says, or when the note is of another version.

    Raises:
        OSError: the state folder may not be looked into.
    """
    try:
        return ReloadNote.model_validate_json((state_dir / NOTE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
