"""Which cameras have a journal in the state folder, and where.

A camera's journal is made by its first capture here and removed when the camera has left and all of its clips are told
of (`capture.orphans`).  So the journal of a camera that is not served tells that something of it is left to do.
"""

from __future__ import annotations

from pathlib import Path

from nodeagent.contract.ids import CameraId

_FOLDER, _ENDING = "journal", ".jsonl"


def journal_path(state_dir: Path, camera_id: CameraId) -> Path:
    """A camera's journal."""
    return state_dir / _FOLDER / f"{camera_id}{_ENDING}"


def journaled(state_dir: Path) -> frozenset[CameraId]:
    """The cameras that have one."""
    return frozenset(path.name.removesuffix(_ENDING) for path in (state_dir / _FOLDER).glob(f"*{_ENDING}"))
