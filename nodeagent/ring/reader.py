"""The reading end of a ring: any process, any number of them, by name.

It promises a whole frame or none.  The easy mistake: a view is only good until the writer comes round again, so what
was made of it counts only after `still` said yes.  Preprocessing copies the pixels anyway, so this costs no copy more.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodeagent.contract.errors import DecodeError, Unavailable
from nodeagent.infra.fence import fence
from nodeagent.ring import folder, layout


class RingReader:
    """Reads a camera's samples of one generation.

    Attributes:
        generation: which of the camera's rings this is.
        width: pixels.
        height: pixels.
        missed: sequences that were asked for and already overwritten, or overwritten while they were used.
    """

    def __init__(self, mapped: folder.Mapped, generation: int) -> None:
        """Read from a mapped ring; made by `open`."""
        self._words = mapped.words
        self._frames = mapped.frames
        self._slots = mapped.geometry.slots
        self.generation = generation
        self.width = mapped.geometry.width
        self.height = mapped.geometry.height
        self.missed = 0

    @classmethod
    def open(cls, memory_dir: Path, camera_id: str, generation: int) -> RingReader:
        """Map a camera's ring.  It stays readable after it lost its name.

        Raises:
            Unavailable: there is no such ring, any more or yet.
            DecodeError: the file is no ring of that generation.
        """
        path = folder.ring_path(memory_dir, camera_id, generation)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise Unavailable(f"ring {path.name}: {exc.strerror}") from exc
        try:
            return cls(folder.map_existing(fd, generation, writable=False), generation)
        except DecodeError as exc:
            raise DecodeError(f"{path.name}: {exc.why}") from exc
        except OSError as exc:
            raise Unavailable(f"ring {path.name}: {exc.strerror}") from exc
        finally:
            os.close(fd)

    @property
    def head(self) -> int:
        """The sequence that the next frame will get."""
        return int(self._words[layout.H_HEAD])

    def view(self, seq: int) -> tuple[NDArray[np.uint8], int] | None:
        """A frame where it lies, (height * 3 // 2, width) uint8, read-only, and its capture time, UTC ns.

        None when it is overwritten, being written or not written yet.  Ask `still(seq)` after using it.
        """
        slot = layout.slot_word(seq, self._slots)
        lock: int = self._words[slot + layout.S_LOCK]
        if lock != layout.whole(seq) or seq < 0:
            if lock > layout.whole(seq) and seq >= 0:
                self.missed += 1
            return None
        fence()
        # Read here, believed after `still`: it may already be the next round's.
        return self._frames[seq % self._slots], self._words[slot + layout.S_CAPTURED_NS]

    def still(self, seq: int) -> bool:
        """Whether the frame that `view` gave was whole until now; if not, discard what was made of it."""
        fence()
        if self._words[layout.slot_word(seq, self._slots) + layout.S_LOCK] == layout.whole(seq):
            return True
        self.missed += 1
        return False

    def read_into(self, seq: int, out: NDArray[np.uint8]) -> int | None:
        """Copy a frame into `out`, (height * 3 // 2, width) uint8, and return its capture time, UTC ns.

        None when it is not there; `out` may then hold anything.
        """
        seen = self.view(seq)
        if seen is None:
            return None
        np.copyto(out, seen[0])
        return seen[1] if self.still(seq) else None

    def close(self) -> None:
        """Let go of the ring; not to be used afterwards.  The memory goes back when no view of it is left."""
        self._words.release()
        self._frames = ()
