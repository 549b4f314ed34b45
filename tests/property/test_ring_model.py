"""The ring against a model: a deque of the newest frames.

Writers come, go, are killed inside a frame, wake up stale and change size; readers hold views, lag by many rounds and
keep rings that lost their names.  Whatever happens, a reader gets a whole frame or nothing, knows how many it missed,
and sequences only grow.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from dataclasses import dataclass
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

    def value(self, seq: int) -> int | None:
        """The pixels' value of a sequence that can be read."""
        return next((value for kept, value, _ in self.kept if kept == seq), None)

    def write(self, value: int, captured_ns: int) -> None:
        self.kept.append((self.head, value, captured_ns))
        self.head += 1

    def lose_oldest(self, slots: int) -> None:
        """A writer has begun the next frame: its slot's frame is gone."""
        if self.kept and self.kept[0][0] <= self.head - slots:
            self.kept.popleft()


@dataclass
class Follower:
    """A reader that takes one sequence after the other, from where it was, however long that is ago."""

    reader: RingReader
    model: Model
    next_seq: int = 0

    def catch_up(self) -> None:
        """Ask for every sequence up to the head: what is gone is counted, what is there is right."""
        missed, gone, out = self.reader.missed, 0, np.empty((self.reader.height * 3 // 2, self.reader.width), np.uint8)
        for seq in range(self.next_seq, self.model.head):
            value = self.model.value(seq)
            if self.reader.read_into(seq, out) is None:
                assert value is None
                gone += 1
            else:
                assert (out == value).all()
        assert self.reader.missed - missed == gone
        self.next_seq = self.model.head


@dataclass
class Held:
    """A view that a reader took and still uses."""

    reader: RingReader
    model: Model
    seq: int
    view: NDArray[np.uint8]


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
        self.followers = [self.follower()]
        self.held: list[Held] = []

    def follower(self) -> Follower:
        return Follower(RingReader.open(self.home, CAMERA, self.generation), self.model)

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
    @rule(rounds=st.integers(1, 60), more=st.integers(0, 4))
    def much_later(self, rounds: int, more: int) -> None:
        """The writer goes round many times while no reader looks."""
        for turn in range(rounds * self.slots + more):
            self.write(turn % 256)

    @rule(data=st.data())
    def a_reader_catches_up(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.followers)).catch_up()

    @rule(data=st.data())
    def a_reader_takes_a_view(self, data: st.DataObject) -> None:
        follower = data.draw(st.sampled_from(self.followers))
        for seq, value, captured_ns in follower.model.kept:
            seen = follower.reader.view(seq)
            assert seen is not None
            assert (seen[1], int(seen[0].min()), int(seen[0].max())) == (captured_ns, value, value)
            self.held.append(Held(follower.reader, follower.model, seq, seen[0]))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def a_view_is_good_or_known_to_be_gone(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.held))
        value, missed = held.model.value(held.seq), held.reader.missed
        assert held.reader.still(held.seq) is (value is not None)
        assert held.reader.missed == missed + (value is None)
        if value is not None:
            assert (held.view == value).all()

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
            self.followers.append(self.follower())
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
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
