"""A volume whose slices are shifted against each other by a gantry tilt -> one on a rectangular grid."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage


def upright(
    values: npt.NDArray[np.int16] | npt.NDArray[np.float32], affine: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Values [x,y,z] and their affine without the tilt; the slices grow so that nothing is cut off.

    Each slice is shifted in its own plane, by linear interpolation; what no slice covers gets the lowest value.
    """
    rows_and_columns, step = affine[:3, :2], affine[:3, 2]
    shift = np.linalg.lstsq(rows_and_columns, step, rcond=None)[0]  # pixels from one slice to the next
    total = shift * (values.shape[2] - 1)
    before, after = np.ceil(np.maximum(0, -total)).astype(int), np.ceil(np.maximum(0, total)).astype(int)
    widths, lowest = list(zip(before, after, strict=True)), float(values.min())
    box = np.empty((*(np.array(values.shape[:2]) + before + after), values.shape[2]), np.float32, order="F")
    for z in range(values.shape[2]):
        padded = np.pad(values[:, :, z].astype(np.float32), widths, constant_values=lowest)
        box[:, :, z] = ndimage.shift(padded, shift * z, order=1, cval=lowest)
    straight = affine.copy()
    straight[:3, 2] = step - rows_and_columns @ shift
    straight[:3, 3] -= rows_and_columns @ before
    return box, straight
