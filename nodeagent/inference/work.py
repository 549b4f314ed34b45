"""What travels between the worker's threads: loader -> engine -> publisher.

A clip is a stream of batches and one `Ended`.  A batch whose `first` is 0 begins its clip anew: that is how a clip
whose samples were lost half-way in the ring starts over from its file.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

import numpy as np

from nodeagent.contract.clip import ClipTask
from nodeagent.inference.engine import Numbers, Pixels
from nodeagent.inference.letterbox import Placement
from nodeagent.inference.model import Model
from nodeagent.infra.bus.port import Delivery

#: Where a clip's samples came from.
Way = Literal["ring", "clip", "none"]
#: Seconds between two looks at whether a waiting thread should give up.
WAIT_S = 0.5
#: Inputs per model: one in the engine, one ready, one being filled.
BUFFERS = 3
#: Items that wait between two threads; batches are bounded by their buffers already.
QUEUE_MAX = 8

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One clip task that is being served.

    Attributes:
        delivery: to be settled at the end.
        task: what it asks for.
        model: serves it; None when it cannot be said which, then the clip ends as unknown.
        started_ns: wall clock when its work began.
    """

    delivery: Delivery
    task: ClipTask
    model: Model | None
    started_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Samples of one clip, ready for the engine.

    Attributes:
        job: the clip.
        model: serves it.
        first: index of the first sample among the clip's samples that were read.
        frames: (b, height, width, 3) uint8, inputs of the model; part of `buffer`.
        buffer: goes back to the model's buffers after the engine ran.
        placement: where the pictures lie in the inputs.
    """

    job: Job
    model: Model
    first: int
    frames: Pixels
    buffer: Pixels
    placement: Placement


@dataclass(frozen=True, slots=True, eq=False)
class Inferred:
    """The engine's numbers for one batch."""

    model: Model
    first: int
    raw: list[Numbers]
    placement: Placement


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """All batches of a clip went before this.

    Attributes:
        job: the clip.
        path: where its samples came from.
        sample_ns: capture times of the samples that were read, in order.
        reason: why nothing is known of the clip; empty: all is well.
        dead: put the task aside instead of acknowledging it.
    """

    job: Job
    path: Way
    sample_ns: tuple[int, ...]
    reason: str = ""
    dead: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Alien:
    """A message that is no clip task."""

    delivery: Delivery
    reason: str


@dataclass(frozen=True, slots=True)
class Last:
    """Nothing comes after this."""


class Cancelled(Exception):
    """The worker ends now; what is under way goes back to the broker."""


class Channel(Generic[_T]):
    """A bounded queue whose waits end when the worker does, and which shows that its ends are alive."""

    def __init__(self, over: threading.Event, size: int = QUEUE_MAX) -> None:
        self._queue: queue.Queue[_T] = queue.Queue(size)
        self._over = over

    def put(self, item: _T, alive: Callable[[], None]) -> None:
        """Wait for room.

        Raises:
            Cancelled: the worker ends.
        """
        while True:
            alive()
            try:
                self._queue.put(item, timeout=WAIT_S)
                return
            except queue.Full:
                if self._over.is_set():
                    raise Cancelled from None

    def take(self, alive: Callable[[], None]) -> _T:
        """Wait for an item.

        Raises:
            Cancelled: the worker ends.
        """
        while True:
            item = self.poll(WAIT_S)
            alive()
            if item is not None:
                return item
            if self._over.is_set():
                raise Cancelled

    def poll(self, timeout_s: float) -> _T | None:
        """An item, or None after `timeout_s`."""
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None


class Buffers:
    """The inputs of every model, made once and lent out."""

    def __init__(self, batch: int, over: threading.Event) -> None:
        self._batch = batch
        self._over = over
        self._free: dict[int, Channel[Pixels]] = {}

    def add(self, model: Model) -> None:
        """Make the inputs of one model."""
        side = model.description.input
        free: Channel[Pixels] = Channel(self._over, BUFFERS)
        for _ in range(BUFFERS):
            free.put(np.empty((self._batch, side.height, side.width, 3), np.uint8), alive=lambda: None)
        self._free[id(model)] = free

    def take(self, model: Model, alive: Callable[[], None]) -> Pixels:
        """Wait for a free input of this model.

        Raises:
            Cancelled: the worker ends.
        """
        return self._free[id(model)].take(alive)

    def give(self, model: Model, buffer: Pixels) -> None:
        """Give an input back; never waits, because there is room for all of them."""
        self._free[id(model)].put(buffer, alive=lambda: None)


@dataclass(slots=True)
class Tally:
    """Counts of several threads, collected by the one that owns the status board's cell."""

    _counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, n: int = 1) -> None:
        """Count `n` more."""
        with self._lock:
            self._counts[name] += n

    def drain(self) -> dict[str, int]:
        """What was counted since the last time."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return dict(counts)
