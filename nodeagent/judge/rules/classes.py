"""Which tracks are of which classes, by name.

Pure.  A track whose class the present model does not have is of none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nodeagent.judge.association import Flags
from nodeagent.judge.rules.port import View


def of_classes(view: View, names: Sequence[str]) -> Flags:
    """(tracks,) bool: whether the track is of one of these classes."""
    # One more than there are: what has no class any more has the label -1.
    wanted = np.array([*(name in names for name in view.labels), False], np.bool_)
    found: Flags = wanted[view.label]
    return found
