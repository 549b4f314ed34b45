"""Which track goes with which box.

Pure.  Boxes are (n, 4) float64, centre x, centre y, width, height, all in one unit.  The easy mistake: an assignment
solver run on the whole matrix; nearly every frame is uncontested, and finding that out is ten times cheaper.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]

_NONE: Indices = np.empty(0, np.intp)


def buffered_iou(one: Floats, other: Floats, buffer: float = 0.0) -> Floats:
    """Intersection over union of every pair, (n, m), after growing each box by `buffer` of its size on every side.

    Buffered IoU is the motion-tolerant likeness of C-BIoU (Yang et al., "Hard to Track Objects with Irregular Motions
    and Similar Appearances? Make It Easier by Buffering the Matching Space", WACV 2023, equation 1); 0 is plain IoU.
    """
    half = 0.5 + buffer
    one_w, one_h = one[:, 2] * half, one[:, 3] * half
    other_w, other_h = other[:, 2] * half, other[:, 3] * half
    one_x, one_y = one[:, 0], one[:, 1]
    other_x, other_y = other[:, 0], other[:, 1]
    width = np.minimum((one_x + one_w)[:, None], other_x + other_w)
    width -= np.maximum((one_x - one_w)[:, None], other_x - other_w)
    height = np.minimum((one_y + one_h)[:, None], other_y + other_h)
    height -= np.maximum((one_y - one_h)[:, None], other_y - other_h)
    np.maximum(width, 0.0, out=width)
    np.maximum(height, 0.0, out=height)
    width *= height
    union = (4.0 * one_w * one_h)[:, None] + 4.0 * other_w * other_h
    union -= width
    np.maximum(union, np.finfo(np.float64).tiny, out=union)
    width /= union
    return width


def best_pairs(likeness: Floats, least: float) -> tuple[Indices, Indices]:
    """Rows and columns of the one-to-one pairs above `least` whose likeness adds up to the most.

    Rows and columns that have a single candidate, which has no other either, are paired at once; only what is left
    contested goes to the solver (Hungarian method, `scipy.optimize.linear_sum_assignment`).
    """
    rows, columns = np.nonzero(likeness > least)
    if rows.size <= 1:
        return rows, columns
    row_count = np.bincount(rows, minlength=likeness.shape[0])
    column_count = np.bincount(columns, minlength=likeness.shape[1])
    alone = (row_count[rows] == 1) & (column_count[columns] == 1)
    if alone.all():
        return rows, columns
    left_rows, left_columns = np.unique(rows[~alone]), np.unique(columns[~alone])
    part = likeness[np.ix_(left_rows, left_columns)]
    part = np.where(part > least, part, 0.0)
    picked_rows, picked_columns = linear_sum_assignment(part, maximize=True)
    good = part[picked_rows, picked_columns] > 0.0
    return (
        np.concatenate((rows[alone], left_rows[picked_rows[good]])),
        np.concatenate((columns[alone], left_columns[picked_columns[good]])),
    )


def any_row(flags: Flags) -> Flags:
    """(columns,) bool: whether any row of `flags`, (rows, columns), is true."""
    found: Flags = np.logical_or.reduce(flags, axis=0)
    return found


def no_pairs() -> tuple[Indices, Indices]:
    """The answer when one side is empty."""
    return _NONE, _NONE
