"""Millimetres to left, back and head (LPS: DICOM, NRRD, MetaImage), or to right, front and head (RAS: NIfTI)."""

import numpy as np
import numpy.typing as npt

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # and back


def along_axes(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[4,4] to mm (RAS+) for a volume of which nobody knows how the patient lies: as ITK takes its stored axes.

    They go to left, back and head from 0, with the voxel sizes of `affine`.
    """
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return np.asarray(LPS_TO_RAS @ np.diag([*sizes, 1.0]), np.float64)
