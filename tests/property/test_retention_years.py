"""Years of a disk's retention against a simple model: what is pinned stays, limits are kept, the oldest go first."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.capture.retention import Excess, Held, Limits, excess, plan

DAY = 24 * 3600 * 10**9
#: Three years, a look a day.
DAYS = 1100

limits = st.builds(
    Limits, max_age_ns=st.none() | st.integers(1, 400).map(lambda days: days * DAY), weight=st.sampled_from([0.5, 1, 3])
)
shelves = st.lists(st.tuples(limits, st.integers(1, 30)), min_size=1, max_size=4, unique_by=lambda shelf: shelf[0])


@dataclass
class Disk:
    """A disk as the file system sees it: names of clips by class, names of pins, and the bytes that any name keeps."""

    size: int
    quota: int
    reserve: int
    clips: dict[Limits, list[Held]]
    pins: set[str] = field(default_factory=set)
    bytes_of: dict[str, int] = field(default_factory=dict)

    @property
    def free(self) -> int:
        return self.size - sum(self.bytes_of.values())

    @property
    def used(self) -> int:
        return sum(held.size for queue in self.clips.values() for held in queue)

    def add(self, owner: Limits, start_ns: int, size: int) -> None:
        held = Held(start_ns, size, False, f"{id(owner)} {start_ns}")
        self.clips[owner].append(held)
        self.bytes_of[held.name] = size

    def pin(self, owner: Limits, place: int) -> None:
        held = self.clips[owner][place]
        self.clips[owner][place] = replace(held, pinned=True)
        self.pins.add(held.name)

    def unpin(self, name: str) -> None:
        self.pins.remove(name)
        for queue in self.clips.values():
            queue[:] = [replace(held, pinned=False) if held.name == name else held for held in queue]
        if not any(held.name == name for queue in self.clips.values() for held in queue):
            del self.bytes_of[name]

    def delete(self, owner: Limits) -> None:
        """The oldest name of a class goes."""
        held = self.clips[owner].pop(0)
        if held.name not in self.pins:
            del self.bytes_of[held.name]

    def todo(self) -> Excess:
        return excess(self.used, self.quota, self.free, self.reserve, self.size)


def owner_of(disk: Disk, held: Held) -> Limits:
    return next(owner for owner, queue in disk.clips.items() if queue and queue[0] == held)


def is_too_old(owner: Limits, held: Held, now_ns: int) -> bool:
    return owner.max_age_ns is not None and now_ns - held.start_ns > owner.max_age_ns


def tidy(disk: Disk, now_ns: int) -> None:
    """One look, each deletion held against the model."""
    queues: Iterable[tuple[Limits, list[Held]]] = [(owner, list(queue)) for owner, queue in disk.clips.items()]
    for held in plan(queues, disk.todo(), now_ns):
        owner = owner_of(disk, held)
        if not is_too_old(owner, held, now_ns):
            # For space: there is none too much now, and nobody's oldest clip is older for its weight.
            assert disk.todo()
            heads = [(now_ns - queue[0].start_ns) / o.weight for o, queue in disk.clips.items() if queue]
            assert (now_ns - held.start_ns) / owner.weight == max(heads)
        disk.delete(owner)
    assert not disk.todo() or not any(disk.clips.values())
    assert not any(is_too_old(owner, held, now_ns) for owner, queue in disk.clips.items() for held in queue)


@settings(max_examples=30)
@given(shelves, st.integers(50, 5000), st.integers(0, 500), st.integers(50, 6000), st.integers(0, 2**32))
def test_years_of_retention_keep_what_is_pinned_and_every_limit(
    classes: list[tuple[Limits, int]], quota: int, reserve: int, size: int, seed: int
) -> None:
    chance = random.Random(seed)
    disk = Disk(size, quota, reserve, {owner: [] for owner, _ in classes})
    pinned_most = size // 4
    for day in range(DAYS):
        now_ns = day * DAY
        for owner, most in classes:
            # A capture writes only while the disk is above its reserve.
            if disk.free - most > reserve:
                disk.add(owner, now_ns + chance.randrange(DAY // 2), chance.randint(1, most))
        owner = chance.choice(classes)[0]
        kept = sum(disk.bytes_of[name] for name in disk.pins)
        if disk.clips[owner] and kept < pinned_most and chance.random() < 0.3:
            place = chance.randrange(len(disk.clips[owner]))
            if not disk.clips[owner][place].pinned:
                disk.pin(owner, place)
        if disk.pins and chance.random() < 0.1:
            disk.unpin(chance.choice(sorted(disk.pins)))
        tidy(disk, now_ns + DAY - 1)
        assert disk.pins <= disk.bytes_of.keys()


@given(
    st.lists(st.tuples(st.integers(1, 100), st.booleans()), max_size=40), st.integers(-50, 2000), st.integers(-50, 2000)
)
def test_retention_deletes_the_shortest_oldest_run_that_is_enough(
    clips: list[tuple[int, bool]], over_quota: int, under_reserve: int
) -> None:
    held = [Held(n, size, pinned, str(n)) for n, (size, pinned) in enumerate(clips)]
    gone = list(plan([(Limits(), held)], Excess(over_quota, under_reserve), now_ns=100))
    assert gone == held[: len(gone)]

    def enough(some: list[Held]) -> bool:
        freed = sum(clip.size for clip in some if not clip.pinned)
        return sum(clip.size for clip in some) >= over_quota and freed >= under_reserve

    assert enough(gone) or len(gone) == len(held)
    assert not gone or not enough(gone[:-1])
