"""Who is in which place, since when, and for how long: one row per track, one column per place.

Pure.  A *place* is one zone of one rule.  Every clock here runs on the camera's watched time, which stands still while
nothing is seen of it, so a gap neither adds to a dwell nor uses up a grace.

A clock belongs to a track and goes with it: a new track starts from nothing.  A track that is not seen keeps its clock
for the place's grace, then loses it; a track that is seen outside is out at once, but if it is back within the grace
its clock goes on from where it stood (the time outside does not count).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from nodeagent.judge.association import Flags, Indices
from nodeagent.judge.tracker import Ints, Matching

#: A time long before any other: never.
NEVER: Final = -(2**62)

#: One clock that is not NEVER, as it stands in a snapshot.
CLOCK_DTYPE: Final = np.dtype(
    [
        ("track", "<i4"),
        ("place", "<i4"),
        ("dwell_ns", "<i8"),
        ("counted_to", "<i8"),
        ("last_in", "<i8"),
        ("first_in_ns", "<i8"),
        ("subject", "?"),
    ]
)
_FIELDS: Final = ("dwell_ns", "counted_to", "last_in", "first_in_ns", "subject")


@dataclass(frozen=True, slots=True)
class Sighting:
    """One sample's boxes against the places.

    Attributes:
        box: (k,) boxes that count for a place and lie in it; a box may stand for several places.
        place: (k,) those places.
        counts: (n boxes, n places) bool: whether the box counts for the place at all (class, score, size).
    """

    box: Indices
    place: Indices
    counts: Flags

    def within(self, places: Flags) -> Sighting:
        """The same without what lies in other places than these, (places,) bool."""
        keep = places[self.place]
        return Sighting(self.box[keep], self.place[keep], self.counts)


class Presence:
    """Clocks of all tracks in all places.

    Attributes, each (tracks, places):
        dwell_ns: int64, watched time spent inside since `first_in_ns`, as of the last sample inside.
        counted_to: int64, watched time up to which the dwell is counted; NEVER: seen outside since.
        last_in: int64, watched time of the last sample inside; NEVER: never was.
        first_in_ns: int64, capture time of the first sample inside.
        subject: bool, whether the track is a subject of the place's episode.
        inside: bool, whether the track counts as inside now.
    """

    def __init__(self, places: int, tracks: int = 0) -> None:
        self.dwell_ns: Ints = np.zeros((tracks, places), np.int64)
        self.counted_to: Ints = np.full((tracks, places), NEVER, np.int64)
        self.last_in: Ints = np.full((tracks, places), NEVER, np.int64)
        self.first_in_ns: Ints = np.zeros((tracks, places), np.int64)
        self.subject: Flags = np.zeros((tracks, places), np.bool_)
        self.inside: Flags = np.zeros((tracks, places), np.bool_)

    def follow(self, matching: Matching) -> None:
        """Drop the rows of tracks that died, add rows for those that were born."""
        kept, born = matching.kept, matching.born
        if kept is None and not born:
            return
        places = self.last_in.shape[1]
        for name, empty in (("dwell_ns", 0), ("counted_to", NEVER), ("last_in", NEVER), ("first_in_ns", 0)):
            self._resize(name, kept, np.full((born, places), empty, np.int64))
        self._resize("subject", kept, np.zeros((born, places), np.bool_))

    def _resize(self, name: str, kept: Indices | None, born: npt.NDArray[np.generic]) -> None:
        array = getattr(self, name)
        array = array if kept is None else array[kept]
        setattr(self, name, np.concatenate((array, born)) if len(born) else array)

    def see(
        self, sighting: Sighting, track: Indices, *, sample_ns: int, watched_ns: int, step_ns: int, grace_ns: Ints
    ) -> None:
        """Take one sample.

        Args:
            sighting: its boxes against the places.
            track: (n boxes,) row of each box's track; -1: none.
            sample_ns: capture time.
            watched_ns: watched time.
            step_ns: watched time since the sample before.
            grace_ns: (places,) int64.
        """
        places = self.last_in.shape[1]
        # Who was inside at the sample before has not been unseen at all, however far apart samples are.
        alive = self.last_in >= watched_ns - step_ns - grace_ns
        rows = track[sighting.box]
        if len(rows) and rows.min() < 0:
            cells = (rows * places + sighting.place)[rows >= 0]
        else:
            cells = rows * places + sighting.place
        flat = alive.reshape(-1)
        was = flat[cells]
        self._enter(cells[~was], sample_ns, watched_ns)
        self._stay(cells[was], watched_ns)
        self.last_in.reshape(-1)[cells] = watched_ns
        flat[cells] = False
        self._leave(flat.nonzero()[0], sighting.counts, track)
        self.inside = self.last_in >= watched_ns - grace_ns
        self.inside &= self.counted_to > NEVER

    def _enter(self, cells: Indices, sample_ns: int, watched_ns: int) -> None:
        if cells.size:
            self.dwell_ns.reshape(-1)[cells] = 0
            self.first_in_ns.reshape(-1)[cells] = sample_ns
            self.counted_to.reshape(-1)[cells] = watched_ns

    def _stay(self, cells: Indices, watched_ns: int) -> None:
        if cells.size:
            counted_to = self.counted_to.reshape(-1)
            since = counted_to[cells]
            self.dwell_ns.reshape(-1)[cells] += np.where(since > NEVER, watched_ns - since, 0)
            counted_to[cells] = watched_ns

    def _leave(self, cells: Indices, counts: Flags, track: Indices) -> None:
        """Stop the clocks of tracks that were in a place and are now seen outside of it."""
        if not cells.size or not len(track):
            return
        box_of = np.full(len(self.last_in) + 1, -1, np.intp)
        box_of[track] = np.arange(len(track))
        box_of[-1] = -1
        rows, columns = np.divmod(cells, self.last_in.shape[1])
        box = box_of[rows]
        seen_outside = (box >= 0) & counts[box, columns]
        self.counted_to.reshape(-1)[cells[seen_outside]] = NEVER

    def clear(self, places: Flags) -> None:
        """Stop all clocks of these places, (places,) bool: who is there comes in anew."""
        self.last_in[:, places] = NEVER
        self.counted_to[:, places] = NEVER
        self.subject[:, places] = False

    def rearrange(self, origin: Indices) -> None:
        """Take over the clocks when the places change: column i comes from column `origin[i]`; -1: starts empty."""
        fresh = Presence(len(origin), len(self.last_in))
        to, source = (origin >= 0).nonzero()[0], origin[origin >= 0]
        for name in (*_FIELDS, "inside"):
            getattr(fresh, name)[:, to] = getattr(self, name)[:, source]
            setattr(self, name, getattr(fresh, name))

    def pack(self) -> npt.NDArray[np.void]:
        """The clocks that run, as CLOCK_DTYPE."""
        rows, columns = np.nonzero((self.last_in > NEVER) | self.subject)
        packed = np.empty(len(rows), CLOCK_DTYPE)
        packed["track"], packed["place"] = rows, columns
        for name in _FIELDS:
            packed[name] = getattr(self, name)[rows, columns]
        return packed

    @classmethod
    def unpack(cls, packed: npt.NDArray[np.void], places: int, tracks: int) -> Presence:
        """Read `pack`.

        Raises:
            IndexError: a clock belongs to no track or place.
        """
        presence = cls(places, tracks)
        rows, columns = packed["track"], packed["place"]
        if len(packed) and min(rows.min(), columns.min()) < 0:
            raise IndexError("a clock of no track or place")
        for name in _FIELDS:
            getattr(presence, name)[rows, columns] = packed[name]
        return presence
