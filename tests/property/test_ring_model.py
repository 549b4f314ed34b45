"""The ring against a model: a deque of the newest frames.

Writers come, go, are killed inside a frame, wake up stale and change size; whatever happens, a reader gets a whole
frame or nothing, and sequences only grow.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from nodeagent.contract.errors import Fenced, Unavailable
from nodeagent.ring import RingReader, RingWriter, layout, ring_path

CAMERA = "cam-1"
SIZES = ((4, 4), (8, 2))
SLOTS = (2, 3, 5)


class Model:
    """What a ring of one generation should hold."""

    def __init__(self, slots: int) -> None:
        self.kept: deque[tuple[int, int, int]] = deque(maxlen=slots)
        self.head = 0

    def write(self, value: int, captured_ns: int) -> None:
        self.kept.append((self.head, value, captured_ns))
        self.head += 1

    def lose_oldest(self, slots: int) -> None:
        """A writer has begun the next frame: its slot's frame is gone."""
        if self.kept and self.kept[0][0] <= self.head - slots:
            self.kept.popleft()


class RingMachine(RuleBasedStateMachine):
    @initialize(size=st.sampled_from(SIZES), slots=st.sampled_from(SLOTS))
    def begin(self, size: tuple[int, int], slots: int) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="ring-model-"))
        self.epoch, self.size, self.slots, self.clock = 1, size, slots, 0
        self.writer: RingWriter | None = RingWriter.open(self.home, CAMERA, 1, *size, slots)
        self.model = Model(slots)
        self.readers = [RingReader.open(self.home, CAMERA, self.writer.generation)]
        self.generation = self.writer.generation
        self.stale: list[tuple[RingWriter, tuple[int, int]]] = []
        # Rings that lost their names: their readers keep what was there.
        self.old: list[tuple[RingReader, Model]] = []

    def picture(self, value: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        return np.full((size[1] * 3 // 2, size[0]), value, np.uint8)

    @precondition(lambda self: self.writer is not None)
    @rule(value=st.integers(0, 255))
    def write(self, value: int) -> None:
        assert self.writer is not None
        self.clock += 1
        seq = self.writer.write(self.picture(value, self.size), self.clock)
        assert seq == self.model.head
        self.model.write(value, self.clock)

    @precondition(lambda self: self.writer is not None)
    @rule(value=st.integers(0, 255), rows=st.integers(0, 2))
    def killed_inside_a_frame(self, value: int, rows: int) -> None:
        """The writer dies after some lines of `write` and some rows of the picture."""
        assert self.writer is not None
        seq = self.writer.head
        words, slot = self.writer._words, layout.slot_word(seq, self.slots)
        words[slot + layout.S_LOCK] = layout.writing(seq)
        self.writer._frames[seq % self.slots][:rows] = value
        self.model.lose_oldest(self.slots)
        self.writer.close()
        self.writer = None

    @precondition(lambda self: self.writer is not None)
    @rule(value=st.integers(0, 255))
    def killed_before_counting_a_frame(self, value: int) -> None:
        assert self.writer is not None
        seq = self.writer.head
        self.write(value)
        self.writer._words[layout.H_HEAD] = seq
        self.writer.close()
        self.writer = None

    @precondition(lambda self: self.writer is not None)
    @rule()
    def stops_in_order(self) -> None:
        assert self.writer is not None
        self.writer.close()
        self.writer = None

    @rule(size=st.sampled_from(SIZES), slots=st.sampled_from(SLOTS), same=st.booleans(), newer=st.booleans())
    def successor(self, size: tuple[int, int], slots: int, same: bool, newer: bool) -> None:
        """Another writer opens the ring; one that still lives becomes stale."""
        if same:
            size, slots = self.size, self.slots
        self.epoch += newer
        adopts = self.writer is None and (size, slots) == (self.size, self.slots)
        if self.writer is not None:
            self.stale.append((self.writer, self.size))
        self.writer = RingWriter.open(self.home, CAMERA, self.epoch, *size, slots)
        assert (self.writer.generation == self.generation) is adopts
        if not adopts:
            assert self.writer.generation > self.generation
            self.old += [(reader, self.model) for reader in self.readers]
            self.readers, self.model = [], Model(slots)
            self.generation, self.size, self.slots = self.writer.generation, size, slots
            self.readers.append(RingReader.open(self.home, CAMERA, self.generation))
        assert self.writer.head == self.model.head

    @precondition(lambda self: self.epoch > 1)
    @rule(data=st.data())
    def an_earlier_epoch_comes_late(self, data: st.DataObject) -> None:
        epoch = data.draw(st.integers(1, self.epoch - 1))
        if self.last_epoch() <= epoch:
            return
        with pytest.raises(Fenced):
            RingWriter.open(self.home, CAMERA, epoch, *self.size, self.slots)

    def last_epoch(self) -> int:
        return int(self.readers[0]._words[layout.H_EPOCH])

    @precondition(lambda self: self.stale)
    @rule(value=st.integers(0, 255), data=st.data())
    def a_stale_writer_wakes(self, value: int, data: st.DataObject) -> None:
        writer, size = data.draw(st.sampled_from(self.stale))
        with pytest.raises(Fenced):
            writer.write(self.picture(value, size), 1)

    @rule()
    def another_reader(self) -> None:
        if len(self.readers) < 3:
            self.readers.append(RingReader.open(self.home, CAMERA, self.generation))

    @rule(data=st.data())
    def an_old_name_is_gone(self, data: st.DataObject) -> None:
        if self.old:
            reader = data.draw(st.sampled_from([reader for reader, _ in self.old]))
            with pytest.raises(Unavailable):
                RingReader.open(self.home, CAMERA, reader.generation)

    @invariant()
    def readers_see_what_the_model_has(self) -> None:
        for reader in self.readers:
            self.check(reader, self.model)
        for reader, model in self.old:
            self.check(reader, model)

    def check(self, reader: RingReader, model: Model) -> None:
        kept = {seq: (value, captured_ns) for seq, value, captured_ns in model.kept}
        out = np.empty((reader.height * 3 // 2, reader.width), np.uint8)
        for seq in range(max(0, model.head - 7), model.head + 3):
            captured_ns = reader.read_into(seq, out)
            if seq in kept:
                assert captured_ns == kept[seq][1]
                assert (out == kept[seq][0]).all()
            else:
                assert captured_ns is None
                assert reader.view(seq) is None

    @invariant()
    def heads_only_grow_and_one_file_is_left(self) -> None:
        assert all(reader.head in (self.model.head, self.model.head - (self.writer is None)) for reader in self.readers)
        names = [path.name for path in (self.home / "rings").iterdir()]
        assert names == [ring_path(self.home, CAMERA, self.generation).name]

    def teardown(self) -> None:
        for writer in [writer for writer, _ in self.stale] + ([self.writer] if self.writer else []):
            writer.close()
        shutil.rmtree(self.home)


TestRingModel = RingMachine.TestCase
TestRingModel.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
