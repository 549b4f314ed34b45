"""What lies where in a ring's file.  Pure.

    page 0            header: 64-bit words, constant ones first; the changing ones on cache lines of their own
    from SLOTS_AT     slot heads, 64 bytes each: lock word, capture time
    from frames_at    frames, each from a page's start: I420, (height * 3 // 2, width) uint8

The lock word of the slot of sequence n (it is slot n modulo `slots`) is 2n + 1 while n is written and 2n + 2 when n
is whole, so it only grows, and a reader of n accepts exactly one value of it.  Between a lock word and what it guards
stands a fence on both ends (`infra.fence`).
"""

from __future__ import annotations

from dataclasses import dataclass

#: First word of the file: "NODERNG1", little endian.
MAGIC = int.from_bytes(b"NODERNG1", "little")
PAGE_BYTES = 4096
WORD_BYTES = 8

# Words of the header that never change.
H_MAGIC, H_GENERATION, H_WIDTH, H_HEIGHT, H_SLOTS = range(5)
#: Lease epoch of the newest writer.
H_EPOCH = 8
#: Counts the writers that took this ring; a writer whose number is no longer here stops.
H_TURN = 9
#: Next sequence.
H_HEAD = 16

SLOTS_AT = PAGE_BYTES
#: One cache line, so that writing one slot's head does not slow the readers of its neighbour.
SLOT_HEAD_BYTES = 64
SLOT_HEAD_WORDS = SLOT_HEAD_BYTES // WORD_BYTES
# Words of a slot's head.
S_LOCK, S_CAPTURED_NS = range(2)

#: Fewer slots than this are no ring: the frame being written and one to read.
SLOTS_MIN = 2
SLOTS_MAX = 65_536
SIDE_MAX = 8192


def _pages(size: int) -> int:
    return -(-size // PAGE_BYTES) * PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Geometry:
    """Size of a ring, fixed for its generation.

    Attributes:
        width: pixels, even.
        height: pixels, even.
        slots: frames that the ring holds.
    """

    width: int
    height: int
    slots: int

    @property
    def is_possible(self) -> bool:
        """Whether I420 frames of this size, and so many of them, can be."""
        sides = all(2 <= side <= SIDE_MAX and side % 2 == 0 for side in (self.width, self.height))
        return sides and SLOTS_MIN <= self.slots <= SLOTS_MAX

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of a frame's array: the planes Y, U and V one below the other."""
        return self.height * 3 // 2, self.width

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return self.width * self.height * 3 // 2

    @property
    def stride(self) -> int:
        """Bytes from one frame to the next."""
        return _pages(self.frame_bytes)

    @property
    def frames_at(self) -> int:
        """Where the first frame lies."""
        return SLOTS_AT + _pages(self.slots * SLOT_HEAD_BYTES)

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return self.frames_at + self.slots * self.stride


def slot_word(seq: int, slots: int) -> int:
    """Word of the file at which the head of the slot of sequence `seq` starts."""
    return (SLOTS_AT // WORD_BYTES) + (seq % slots) * SLOT_HEAD_WORDS


def writing(seq: int) -> int:
    """Lock word while `seq` is written."""
    return 2 * seq + 1


def whole(seq: int) -> int:
    """Lock word when `seq` can be read."""
    return 2 * seq + 2
