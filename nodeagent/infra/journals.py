"""Which cameras have a journal in the state folder, and where.

A camera's journal is made by its first capture here and removed when the camera has left and all of its clips are told
of (`capture.orphans`).  So the journal of a camera that is not served tells that something of it is left to do.  Where
clips may lie on a disk that is away, or the account waits for the clock, it stays, and ends with `TOLD`: all that can
be reached is told.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from nodeagent.contract.ids import CameraId

#: Last line of such a journal.
TOLD: Final = b'{"r":"told"}\n'

_FOLDER, _ENDING = "journal", ".jsonl"


def journal_path(state_dir: Path, camera_id: CameraId) -> Path:
    """A camera's journal."""
    return state_dir / _FOLDER / f"{camera_id}{_ENDING}"


def journaled(state_dir: Path) -> frozenset[CameraId]:
    """The cameras that have one."""
    return frozenset(path.name.removesuffix(_ENDING) for path in (state_dir / _FOLDER).glob(f"*{_ENDING}"))


def untold(state_dir: Path) -> frozenset[CameraId]:
    """Those of them of which more is to be told, as far as is known."""
    return frozenset(name for name in journaled(state_dir) if not _is_told(journal_path(state_dir, name)))


def _is_told(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - len(TOLD)))
            return file.read() == TOLD
    except FileNotFoundError:
        # It went meanwhile.
        return True
