"""The process that keeps the pool's disks within quota and reserve, and clips no longer than their class allows.

What is done to a disk is `disk_keeper`.  Each is tidied in a thread of its own: one that hangs keeps no other from its
reserve.  Another thread is for what removed cameras left (`orphans`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nodeagent.capture import orphans
from nodeagent.capture.age_clock import AgeClock
from nodeagent.capture.classes import Classes, LimitsOf
from nodeagent.capture.disk_keeper import DiskKeeper
from nodeagent.capture.disk_writer import DiskStalled, Hand, Job
from nodeagent.capture.probes import Probes
from nodeagent.contract.states import State
from nodeagent.infra.board import BoardCell
from nodeagent.infra.disk_notes import Aside, DiskNotes
from nodeagent.infra.settings.sections import GIB, PoolSettings
from nodeagent.infra.storage import StorageFull, StorageMissing, free_bytes, open_storage
from nodeagent.infra.worker import EXIT_OK, WorkerContext

#: How often the disks are looked at, seconds: at 200 cameras of 8 Mbit/s a disk fills by 1 GB meanwhile.
LOOK_S = 5.0
#: After so long counting goes on at the next look, seconds: it leaves the disks to recording for half of the time.
COUNT_S = 2.5
#: After so long deleting goes on at the next look, seconds: limits and the list of disks are taken over between looks.
CLEAR_S = 10.0
#: A disk that takes longer than this for one folder or one deletion hangs, seconds; the slow ones take some.
STEP_ALLOW_S = 30.0
#: Longest wait between two beats, seconds.
_BEAT_S = 0.5


def main(ctx: WorkerContext, _arg: str) -> int:
    """Look after the disks until told to stop."""
    storage = open_storage(ctx.settings)
    probes = Probes(DiskNotes(ctx.settings.node.state_dir), ctx.clock)
    ctx.cell.state(State.RUNNING)
    ctx.cell.ready()
    orphans.start(ctx)
    classes = Classes(ctx.settings)
    ages = AgeClock(ctx.settings.node.state_dir / "retention_clock.json", ctx.clock.wall_ns(), ctx.clock.monotonic_s())
    tidiers: dict[Path, Tidier] = {}
    while not ctx.stop.requested:
        end_s = ctx.clock.monotonic_s() + LOOK_S
        classes.refresh()
        old_by_ns = ages.now_ns(ctx.clock.wall_ns(), ctx.clock.monotonic_s())
        look(ctx, storage.pools, tidiers, probes, classes.limits, old_by_ns)
        while ctx.clock.monotonic_s() < end_s and not ctx.stop.wait(_BEAT_S):
            ctx.cell.beat()
    return EXIT_OK


def look(
    ctx: WorkerContext,
    pools: Sequence[PoolSettings],
    tidiers: dict[Path, Tidier],
    probes: Probes,
    limits_of: LimitsOf,
    old_by_ns: int,
) -> None:
    """One look at every disk, and what it showed on the board.

    Args:
        ctx: the worker's.
        pools: the disks in use now.
        tidiers: those of the looks before, by disk; brought up to `pools`.
        probes: what they find is shown too.
        limits_of: how long clips of a camera's stream stay.
        old_by_ns: the time by which clips are old, UTC ns.
    """
    for gone in tidiers.keys() - {pool.path for pool in pools}:
        del tidiers[gone]
    for pool in pools:
        tidier = tidiers.get(pool.path) or Tidier(ctx, pool, limits_of)
        tidier.begin(pool, limits_of, old_by_ns)
        tidiers[pool.path] = tidier
    _show(ctx, list(tidiers.values()), probes.step([pool.path for pool in pools]))
    probes.has_room({disk: room for disk, tidier in tidiers.items() if (room := tidier.room) is not None})


def _show(ctx: WorkerContext, tidiers: Sequence[Tidier], aside: dict[Path, Aside]) -> None:
    """Wait for what the disks answer, and put it on the board."""
    clips = size = free = quota = 0
    missing, full = [], []
    for tidier in tidiers:
        keeper, disk = tidier.keeper, tidier.keeper.pool.path
        try:
            free += tidier.free()
        except StorageMissing:
            missing.append(str(disk))
            continue
        except DiskStalled as exc:
            aside.setdefault(disk, Aside(disk, str(exc), ctx.clock.wall_ns()))
        except (OSError, StorageFull) as exc:
            full.append(f"{disk}: {exc}")
        clips, size = clips + keeper.used[0], size + keeper.used[1]
        quota += round(keeper.pool.quota_gb * GIB)
    for name, value in (("clips", clips), ("bytes", size), ("free_bytes", free), ("quota_bytes", quota)):
        ctx.cell.set(name, value)
    _tell(ctx.cell, missing, aside, full)


def _tell(cell: BoardCell, missing: list[str], aside: dict[Path, Aside], full: list[str]) -> None:
    """Show the worst of what a look found."""
    if missing:
        cell.state(State.STORAGE_MISSING, f"no marker in {', '.join(missing)}")
    elif aside:
        cell.state(State.DISK_ASIDE, "; ".join(f"{note.disk}: {note.why}" for note in aside.values()))
    elif full:
        cell.state(State.STORAGE_FULL, "; ".join(full))
    else:
        cell.state(State.RUNNING)


class Tidier:
    """The thread that tidies one disk.

    Attributes:
        keeper: the disk's.
    """

    def __init__(self, ctx: WorkerContext, pool: PoolSettings, limits_of: LimitsOf) -> None:
        self.keeper = DiskKeeper(pool, limits_of, self._beat)
        self._ctx = ctx
        self._hand = Hand(pool.path, ctx.clock)
        self._job: Job[int] | None = None
        self._beat_s = 0.0
        self._free = 0
        self._looked = False

    @property
    def room(self) -> float | None:
        """What part of the quota new clips can take before old ones must go, 0 to 1; None before the first look."""
        pool, quota = self.keeper.pool, self.keeper.pool.quota_gb * GIB
        left = min(quota - self.keeper.used[1], self._free - pool.reserve_gb * GIB)
        return min(max(left / quota, 0.0), 1.0) if self._looked else None

    def _beat(self) -> None:
        self._beat_s = self._ctx.clock.monotonic_s()

    def begin(self, pool: PoolSettings, limits_of: LimitsOf, old_by_ns: int) -> None:
        """Begin a look at the disk with these settings, unless the last one goes on still."""
        if self._job is None:
            self.keeper.follow(pool, limits_of)
            self._beat()
            self._job = self._hand.ask(lambda: _tidy(self._ctx, self.keeper, old_by_ns))

    def free(self) -> int:
        """Free bytes of the disk when the look has ended, as of the last one when it takes longer than `LOOK_S`.

        Raises:
            StorageMissing: it has no marker.
            StorageFull: it stays under its reserve with nothing left to delete.
            DiskStalled: it has not answered for long.
            OSError: it refuses.
        """
        while (job := self._job) is not None:
            self._ctx.cell.beat()
            try:
                self._free, self._looked = job.result(_BEAT_S), True
            except DiskStalled:
                now_s = self._ctx.clock.monotonic_s()
                if (waits_s := now_s - self._beat_s) >= STEP_ALLOW_S:
                    raise DiskStalled(f"no answer for {waits_s:.0f} s") from None
                if now_s - job.asked_s >= LOOK_S or self._ctx.stop.requested:
                    break
            except BaseException:
                self._job, self._free = None, 0
                raise
            else:
                self._job = None
        return self._free


def _tidy(ctx: WorkerContext, keeper: DiskKeeper, old_by_ns: int) -> int:
    """Tidy one disk; returns its free bytes.

    Raises:
        StorageMissing: it has no marker.
        StorageFull: it stays under its reserve with nothing left to delete.
        OSError: it does not answer, or refuses.
    """
    now_ns = ctx.clock.wall_ns()
    keeper.find(now_ns)
    end_s = ctx.clock.monotonic_s() + COUNT_S
    for _ in keeper.count(now_ns):
        if ctx.stop.requested or ctx.clock.monotonic_s() >= end_s:
            break
    end_s = ctx.clock.monotonic_s() + CLEAR_S
    for _ in keeper.clear(old_by_ns):
        ctx.cell.add("deleted")
        if ctx.stop.requested or ctx.clock.monotonic_s() >= end_s:
            # There is more to delete, so the disk may well be under its reserve still.
            return free_bytes(keeper.pool.path)
    free = free_bytes(keeper.pool.path)
    if free < keeper.pool.reserve_gb * GIB:
        raise StorageFull(f"{free / GIB:.2f} GiB free, nothing left to delete")
    return free
