"""Where clips are cut.  Pure.

A clip can only begin at a key frame.  It is cut at the key frame nearest to the line of the UTC grid that is due, so
that clips average the grid's spacing whatever the distance of key frames is; a GOP longer than that is one clip.
"""

from __future__ import annotations


class Segmenter:
    """Decides at each key frame whether a new clip begins; `grid_ns` is the wanted length."""

    def __init__(self, grid_ns: int) -> None:
        self._grid_ns = grid_ns
        self._due_ns: int | None = None
        self._last_key_ns: int | None = None

    def reset(self) -> None:
        """The stream was interrupted: the next key frame begins a clip."""
        self._due_ns = None
        self._last_key_ns = None

    def begin(self, start_ns: int) -> None:
        """A clip begins at this key frame."""
        nearest = (start_ns + self._grid_ns // 2) // self._grid_ns
        self._due_ns = (nearest + 1) * self._grid_ns
        self._last_key_ns = start_ns

    def cuts(self, key_ns: int) -> bool:
        """Whether a clip should begin at this key frame, rather than at the next one, expected one GOP later."""
        gop_ns = 0 if self._last_key_ns is None else max(0, key_ns - self._last_key_ns)
        self._last_key_ns = key_ns
        return self._due_ns is None or 2 * key_ns + gop_ns >= 2 * self._due_ns
