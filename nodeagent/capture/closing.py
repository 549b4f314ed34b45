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
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from nodeagent.capture.disk_writer import STALL_S, DiskStalled, Hands
from nodeagent.capture.journal import Closed, Journal
from nodeagent.contract.clip import ClipId, ClipTask, clip_file_name, part_file_name
from nodeagent.infra.files import rename_durably

log = logging.getLogger(__name__)

#: Clips that may wait for the state folder, about three hours of them: each holds a few kilobytes of memory.
MAX_WAITING = 2000
#: Clips that are closed in one go when the state folder can be written again: with their syncs about a second's work.
AT_ONCE = 20
#: Epochs of which the last number is known; a clip is held back for less than one takes.
EPOCHS_KEPT = 8


class Closer:
    """Steps 2 and 3 for the clips of one camera, in their order; for one thread.

    A state folder that refuses the record stops no recording: clips wait here in memory, on their disk as
    `*.part.mp4`, and are closed when there is room again.  Killed meanwhile, the next start repairs them like any part.

    Attributes:
        journal: the camera's journal.
        trouble: why clips wait, if some do.
        hands: the threads that write to the pool's disks.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.hands = Hands()
        self.trouble = ""
        self._waiting: deque[Closed] = deque()
        #: By epoch, the clip that got the last number: one that a slow disk held back may end an epoch that is over.
        self._epochs: dict[int, ClipTask] = {}

    @property
    def last(self) -> Closed | None:
        """The latest clip, whether it is closed or waits for that."""
        return self._waiting[-1] if self._waiting else self.journal.last

    def next_seq(self, epoch: int) -> int:
        """The number that the next clip of this epoch gets."""
        if epoch in self._epochs:
            return self._epochs[epoch].clip_seq + 1
        last = self.journal.last
        return last.task.clip_seq + 1 if last is not None and last.task.epoch == epoch else 0

    def epoch_started_ns(self, epoch: int) -> int | None:
        """Capture time of the epoch's first sample; None when no clip of it was finished yet."""
        if epoch in self._epochs:
            return self._epochs[epoch].epoch_started_ns
        return self.journal.epoch_started_ns if self.journal.epoch == epoch else None

    def close(self, closed: Closed) -> None:
        """Close a clip whose file is complete and synced, after those that wait."""
        self._epochs[closed.task.epoch] = closed.task
        while len(self._epochs) > EPOCHS_KEPT:
            del self._epochs[min(self._epochs)]
        self._waiting.append(closed)
        if len(self._waiting) > MAX_WAITING:
            oldest = self._waiting.popleft()
            log.error("clip %s waits for the next start", oldest.task.clip_id, extra={"event": "clip_left_unfinished"})
        self.settle()

    def settle(self) -> None:
        """Close clips that wait, as far as the state folder lets."""
        for _ in range(min(AT_ONCE, len(self._waiting))):
            closed = self._waiting[0]
            try:
                self._record(closed)
            except OSError as exc:
                self._say(f"state folder: {exc.strerror}; {len(self._waiting)} clips wait to be closed")
                return
            self._waiting.popleft()
            self.on_disk(closed.folder, closed.task.clip_id, lambda closed=closed: give_final_name(closed))  # type: ignore[misc]
        if not self._waiting:
            self._say("")

    def on_disk(self, folder: Path, clip: ClipId, rename: Callable[[], object]) -> None:
        """Have the thread of this folder's disk give a clip its name, and wait no longer than a stall lasts.

        Refused or late, the clip is safe: the journal has it, or the next start repairs it.
        """
        hand = self.hands.holding(folder)
        try:
            if hand is None:
                rename()
            else:
                hand.ask(rename).result(STALL_S)
        except (OSError, DiskStalled) as exc:
            why = exc.strerror if isinstance(exc, OSError) else exc
            log.warning("clip %s: %s", clip, why, extra={"event": "clip_not_renamed"})

    def _record(self, closed: Closed) -> None:
        journal, task = self.journal, closed.task
        if journal.epoch < task.epoch:
            journal.begin_epoch(task.epoch, task.epoch_started_ns)
        journal.close_clip(closed)

    def _say(self, trouble: str) -> None:
        if bool(trouble) != bool(self.trouble):
            log.log(
                logging.WARNING if trouble else logging.INFO,
                "%s",
                trouble or "clips are closed again",
                extra={"event": "closing_state"},
            )
        self.trouble = trouble


def give_final_name(closed: Closed) -> bool:
    """Step 3, harmless when it was done; whether the file was still to be renamed."""
    task = closed.task
    part = closed.folder / part_file_name(task.clip_id)
    try:
        rename_durably(part, closed.folder / clip_file_name(task.clip_id, task.duration_ns))
    except FileNotFoundError:
        return False
    return True


def give_unannounced_name(part: Path, clip: ClipId, duration_ns: int) -> None:
    """Close a clip that nobody is told of: its name is all.  Killed before, or refused, the next start repairs it.

    Raises:
        OSError: the disk refused.
    """
    rename_durably(part, part.with_name(clip_file_name(clip, duration_ns)))


def finish_renames(journal: Journal, shunned: Sequence[Path] = ()) -> None:
    """What a killed predecessor had closed but not renamed.

    Clips of a disk that is away, or is `shunned`, wait for the next start.
    """
    waiting = {closed.key: closed for closed in journal.all_unconfirmed()}
    if journal.last is not None:
        waiting.setdefault(journal.last.key, journal.last)
    for closed in waiting.values():
        if any(closed.folder.is_relative_to(disk) for disk in shunned):
            continue
        try:
            if give_final_name(closed):
                log.info("clip %s: renamed after a kill", closed.task.clip_id, extra={"event": "clip_renamed"})
        except OSError as exc:
            log.warning("clip %s: %s", closed.task.clip_id, exc.strerror, extra={"event": "clip_not_renamed"})
