"""From a written file to a clip that is announced: the order that survives kill -9 between any two steps.

1. the file's content is synced (`Part.finish`, or a repair)
2. the journal says "closed", synced, with all that the announcement needs
3. the file gets its final name, and the folder is synced
4. the publisher announces it; the journal says "confirmed"

Killed before 2 the file is a `*.part.mp4` without a record: repaired at the next start.  Killed between 2 and 3 the
next start renames it.  Killed after 3 the clip waits in the journal.  So no closed clip is lost, and none is announced
before a reader can find it.
"""

from __future__ import annotations

import logging

from nodeagent.capture.journal import Closed, Journal
from nodeagent.contract.clip import clip_file_name, part_file_name
from nodeagent.infra.files import rename_durably

log = logging.getLogger(__name__)


def close_clip(closed: Closed, journal: Journal) -> None:
    """Steps 2 and 3 for a clip whose file is complete and synced.

    Raises:
        OSError: a disk refused; before step 2 the clip counts as not closed, after it the next start finishes it.
    """
    journal.close_clip(closed)
    give_final_name(closed)


def give_final_name(closed: Closed) -> bool:
    """Step 3, harmless when it was done; whether the file was still to be renamed."""
    task = closed.task
    part = closed.folder / part_file_name(task.clip_id)
    try:
        rename_durably(part, closed.folder / clip_file_name(task.clip_id, task.duration_ns))
    except FileNotFoundError:
        return False
    return True


def finish_renames(journal: Journal) -> None:
    """What a killed predecessor had closed but not renamed.  Clips of a disk that is away wait for the next start."""
    waiting = {closed.key: closed for closed in journal.all_unconfirmed()}
    if journal.last is not None:
        waiting.setdefault(journal.last.key, journal.last)
    for closed in waiting.values():
        try:
            if give_final_name(closed):
                log.info("clip %s: renamed after a kill", closed.task.clip_id, extra={"event": "clip_renamed"})
        except OSError as exc:
            log.warning("clip %s: %s", closed.task.clip_id, exc.strerror, extra={"event": "clip_not_renamed"})
