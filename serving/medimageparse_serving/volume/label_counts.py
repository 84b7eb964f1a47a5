"""How many voxels each label has, and where it occurs: counted by runs, since labels lie in long ones."""

import numpy as np
from numpy.typing import NDArray


def count_labels(label_slices: NDArray[np.uint8]) -> tuple[NDArray[np.int64], list[NDArray[np.bool_]]]:
    """Of labels [D,H,W] the voxels of each of 256, and for each axis [256,n]: does the label, if not 0, occur there."""
    n_slices, height, width = label_slices.shape
    counts = np.zeros(256, np.int64)
    on_slice, on_row = np.zeros((256, n_slices), np.bool_), np.zeros((256, height), np.bool_)
    steps = np.zeros((256, width + 1), np.int64)  # how many more runs cover this column than the one before
    for d, labels in enumerate(label_slices):
        label, start, length = runs_of(labels)
        row, column = np.divmod(start, width)
        counts += np.bincount(label, length, 256).astype(np.int64)
        on_slice[label, d] = on_row[label, row] = True
        np.add.at(steps, (label, column), 1)
        np.add.at(steps, (label, column + length), -1)
    counts[0] = label_slices.size - counts.sum()
    return counts, [on_slice, on_row, steps.cumsum(1)[:, :width] > 0]


def runs_of(labels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Of labels [H,W] other than 0: label, first voxel, length of each run; none goes beyond a row."""
    flat = labels.ravel()
    is_start = np.empty(flat.size, np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=is_start[1:])
    is_start[:: labels.shape[1]] = True
    start = np.flatnonzero(is_start)
    length = np.diff(start, append=flat.size)
    shown = np.flatnonzero(flat[start])
    return flat[start[shown]], start[shown], length[shown]
