"""Clip tasks in, batches out: the thread that reads samples while the engine computes.

Samples are read from the ring where they lie and written into the model's input; only afterwards it is asked whether
they were still whole.  If one was not, what was made of the clip so far is void and the whole clip comes from its file,
so that no clip mixes two ways.  Nothing is settled here: that is the publisher's, after the broker has the result.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from nodeagent.contract.clip import ClipTask
from nodeagent.contract.errors import BadMedia, Unavailable
from nodeagent.inference.choice import Choice
from nodeagent.inference.clip_files import ClipFiles
from nodeagent.inference.engine import Pixels
from nodeagent.inference.intake import Intake, Taken
from nodeagent.inference.letterbox import Letterbox
from nodeagent.inference.model import Model
from nodeagent.inference.rings import Rings
from nodeagent.inference.tries import TRIES_MAX, Tries
from nodeagent.inference.work import WAIT_S, Alien, Batch, Buffers, Cancelled, Channel, Ended, Job, Way
from nodeagent.infra.clock import Clock
from nodeagent.infra.video import clip_samples

log = logging.getLogger(__name__)

#: Clips under way: one is read, one is in the engine, one is published.
UNDER_WAY_MAX = 3
#: Seconds between two looks for rings whose memory can go back.
SWEEP_S = 5.0
#: Letterboxes that are kept, each for a model and a size of samples.
LETTERBOXES_MAX = 64

Items = Channel[Batch | Ended | Alien]


class Loader:
    """Takes deliveries and fills inputs.

    Attributes:
        alive_s: monotonic time of its last step.
        done: it will not put anything more.
        crashed: it ended by an error that nobody foresaw; the worker must start anew.
    """

    def __init__(
        self,
        node_id: str,
        intake: Intake,
        files: ClipFiles,
        rings: Rings,
        choice: Choice,
        buffers: Buffers,
        tries: Tries,
        clock: Clock,
    ) -> None:
        self._node_id = node_id
        self._intake = intake
        self._files = files
        self._rings = rings
        self._choice = choice
        self._buffers = buffers
        self._tries = tries
        self._clock = clock
        self._letterboxes: dict[tuple[int, int, int], Letterbox] = {}
        self.alive_s = clock.monotonic_s()
        self.done = threading.Event()
        self.crashed = False

    def run(self, out: Items, leave: Callable[[bool], bool]) -> None:
        """Serve until `leave`, told whether the last look found a task, says so; the clip under way is finished."""
        sweep_s, took = 0.0, False
        try:
            while not leave(took):
                self.alive()
                if self.alive_s >= sweep_s:
                    self._rings.drop_gone()
                    sweep_s = self.alive_s + SWEEP_S
                self._tries.wait_for_room(UNDER_WAY_MAX, self.alive)
                item = self._intake.next(WAIT_S)
                took = item is not None
                if isinstance(item, Alien):
                    out.put(item, self.alive)
                elif item is not None:
                    self._serve(item, out)
        except Cancelled:
            log.info("clip under way goes back to the broker", extra={"event": "clip_given_back"})
        except Exception:
            # The worker ends and starts anew; the clip that did it stays charged with a try.
            log.exception("loader failed", extra={"event": "loader_failed"})
            self.crashed = True
        finally:
            self._rings.close()
            self._files.close()
            self.done.set()

    def alive(self) -> None:
        """Show that this thread moves."""
        self.alive_s = self._clock.monotonic_s()

    def _serve(self, taken: Taken, out: Items) -> None:
        model = self._choice.model_of(taken.task.camera_id)
        job = Job(taken.delivery, taken.task, model, self._clock.wall_ns())
        clip = taken.task.clip_id
        if self._tries.of(clip):
            # It ended a worker, or was under way in one that ended, or is under way here and came twice.
            self._tries.wait_for_room(1, self.alive)
        before = self._tries.of(clip)
        if before >= TRIES_MAX:
            reason = f"given up after {before} tries: each one ended its worker"
            out.put(Ended(job, "none", (), reason, dead=True), self.alive)
            return
        self._tries.begin(clip)
        out.put(self._read(job, out), self.alive)
        if before:
            self._tries.wait_for_room(1, self.alive)

    def _read(self, job: Job, out: Items) -> Ended:
        if job.model is None:
            return Ended(job, "none", (), "camera unknown on this node, and it has several models")
        if not job.task.sample_ns:
            return Ended(job, "none", ())
        try:
            letterbox = self._letterbox(job.model, job.task)
            filling = Filling(job, job.model, letterbox, self._buffers, out, self.alive)
            if self._from_ring(job.task, filling):
                return filling.end("ring")
            filling = Filling(job, job.model, letterbox, self._buffers, out, self.alive)
            self._from_clip(job.task, filling)
            return filling.end("clip")
        except (BadMedia, Unavailable, OSError) as exc:
            return Ended(job, "none", (), f"clip cannot be read: {exc}")

    def _from_ring(self, task: ClipTask, filling: Filling) -> bool:
        """Fill from the ring; False: not all of it is there (any more), and nothing of what was filled counts."""
        ref = task.ring
        if ref is None or task.node_id != self._node_id or ref.count != len(task.sample_ns):
            return False
        reader = self._rings.reader(task.camera_id, ref.generation)
        if reader is None or (reader.width, reader.height) != (task.sample_width, task.sample_height):
            return False
        for seq, captured_ns in enumerate(task.sample_ns, ref.first_seq):
            slot = filling.slot()
            seen = reader.view(seq)
            if seen is None or seen[1] != captured_ns:
                return filling.drop()
            filling.letterbox(seen[0], slot)
            if not reader.still(seq):
                return filling.drop()
            filling.keep(captured_ns)
        return True

    def _from_clip(self, task: ClipTask, filling: Filling) -> None:
        """Fill from the clip's file; samples that are broken in it are left out.

        Raises:
            BadMedia: the file is gone or cannot be decoded.
            Unavailable: it lies on a node that cannot be asked.
        """
        last = -1
        try:
            with self._files.file_of(task, self.alive) as path:
                samples = clip_samples(path, task.start_ns, task.sample_ns, task.sample_width, task.sample_height)
                for index, i420 in samples:
                    if index > last:
                        filling.letterbox(i420, filling.slot())
                        filling.keep(task.sample_ns[index])
                        last = index
        except BaseException:
            filling.drop()
            raise

    def _letterbox(self, model: Model, task: ClipTask) -> Letterbox:
        key = (id(model), task.sample_width, task.sample_height)
        if key not in self._letterboxes:
            if len(self._letterboxes) >= LETTERBOXES_MAX:
                self._letterboxes.clear()
            self._letterboxes[key] = Letterbox(task.sample_width, task.sample_height, model.description.input)
        return self._letterboxes[key]


class Filling:
    """One try to read a clip: fills inputs and sends each on when it is full."""

    def __init__(
        self, job: Job, model: Model, letterbox: Letterbox, buffers: Buffers, out: Items, alive: Callable[[], None]
    ) -> None:
        self.letterbox = letterbox
        self._job = job
        self._model = model
        self._buffers = buffers
        self._out = out
        self._alive = alive
        self._buffer: Pixels | None = None
        self._filled = 0
        self._sent = 0
        self._sample_ns: list[int] = []

    def slot(self) -> Pixels:
        """Where the next sample goes, (height, width, 3).

        Raises:
            Cancelled: the worker ends.
        """
        self._alive()
        if self._buffer is None:
            self._buffer = self._buffers.take(self._model, self._alive)
        slot: Pixels = self._buffer[self._filled]
        return slot

    def keep(self, captured_ns: int) -> None:
        """The slot holds the sample of this time."""
        self._sample_ns.append(captured_ns)
        self._filled += 1
        if self._buffer is not None and self._filled == len(self._buffer):
            self._send(self._buffer)

    def drop(self) -> bool:
        """Give the input back unused; always False, which says that the try failed."""
        if self._buffer is not None:
            self._buffers.give(self._model, self._buffer)
            self._buffer = None
        return False

    def end(self, path: Way) -> Ended:
        """Send what is left; the clip is read."""
        if self._buffer is not None:
            self._send(self._buffer)
        return Ended(self._job, path, tuple(self._sample_ns))

    def _send(self, buffer: Pixels) -> None:
        frames = buffer[: self._filled]
        batch = Batch(self._job, self._model, self._sent, frames, buffer, self.letterbox.placement)
        self._buffer, self._sent, self._filled = None, self._sent + self._filled, 0
        self._out.put(batch, self._alive)
