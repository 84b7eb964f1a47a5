"""What an affine [4,4] says of a volume: whether it can be one, whether its axes are sheared, which sides it names."""

import numpy as np
from nibabel.orientations import aff2axcodes
from numpy.typing import NDArray

Affine = NDArray[np.float64]

FARTHEST_MM = 1e9  # what reaches farther is garbage
SMALLEST_MM = 1e-9  # and so is a voxel that is smaller, far below an atom
# The smallest singular value of the three directions. The strongest gantry tilts leave 0.6; below this, two axes lie
# within half a degree of each other.
SINGULAR = 0.01
# The largest cosine between two axes that should be perpendicular, 3 degrees. Rounding makes 1e-6 and a registration
# with 12 degrees of freedom 0.01 to 0.05; a gantry is tilted by 10 to 30 degrees.
SHEARED = 0.05
# Directions closer than this are the same ones, 6 degrees: an axis at 45 degrees runs to two sides, by its last bit.
SAME_DIRECTION = 0.1


def directions(affine: Affine) -> Affine:
    """The three axes [3,3], a column each, of length 1; 0 or NaN where there is none."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return np.asarray(affine[:3, :3] / np.where(lengths > 0, lengths, 1))


def is_usable(affine: Affine, mm: float) -> bool:
    if not (np.abs(affine[:3, :3]) * mm < FARTHEST_MM).all():
        return False
    if not (np.linalg.norm(affine[:3, :3], axis=0) * mm >= SMALLEST_MM).all():
        return False
    return bool(np.linalg.svd(directions(affine), compute_uv=False)[-1] > SINGULAR)


def shear(affine: Affine) -> float:
    """The largest cosine between two axes; 0 if they are perpendicular."""
    axes = directions(affine)
    return float(np.abs(axes.T @ axes - np.diag(np.diag(axes.T @ axes))).max())


def name_other_sides(sform: Affine, qform: Affine) -> bool:
    are_close = np.abs(directions(sform) - directions(qform)).max() < SAME_DIRECTION
    return not are_close and axis_codes(sform) != axis_codes(qform)


def axis_codes(affine: Affine) -> str:
    return "".join(aff2axcodes(affine))
