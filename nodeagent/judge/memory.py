"""What a kind of rule remembers from sample to sample: per track and place, and per place.

Pure.  A kind names its two types; every record of zeros means that nothing is known yet.  Rows follow the tracks and
columns follow the places as those of `Presence` do, so a new track never inherits what was known of another.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from nodeagent.judge.association import Flags, Indices
from nodeagent.judge.tracker import Matching

Records = npt.NDArray[np.void]
#: The type of a kind that remembers nothing.
NO_MEMORY: Final = np.dtype([])


class Memory:
    """The memory of one kind of one camera.

    Attributes:
        tracks: (tracks, places of the kind) of the kind's `TRACK_MEMORY`.
        places: (places of the kind,) of its `PLACE_MEMORY`.
    """

    def __init__(self, track: np.dtype[np.void], place: np.dtype[np.void], places: int, tracks: int = 0) -> None:
        self.tracks: Records = np.zeros((tracks, places), track)
        self.places: Records = np.zeros(places, place)

    def follow(self, matching: Matching) -> None:
        """Drop the rows of tracks that died, add rows for those that were born."""
        if matching.kept is not None:
            self.tracks = self.tracks[matching.kept]
        if matching.born:
            fresh = np.zeros((matching.born, self.tracks.shape[1]), self.tracks.dtype)
            self.tracks = np.concatenate((self.tracks, fresh))

    def clear(self, places: Flags) -> None:
        """Forget all of these places, (places of the kind,) bool."""
        self.tracks[:, places] = np.zeros((), self.tracks.dtype)
        self.places[places] = np.zeros((), self.places.dtype)

    def take_over(self, old: Memory, origin: Indices) -> None:
        """Remember what `old` knew: column i is its column `origin[i]`; -1: nothing is known."""
        if old.tracks.dtype != self.tracks.dtype or old.places.dtype != self.places.dtype:
            return
        to, source = (origin >= 0).nonzero()[0], origin[origin >= 0]
        self.tracks[:, to] = old.tracks[:, source]
        self.places[to] = old.places[source]
