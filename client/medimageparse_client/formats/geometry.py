"""Millimetres to left, back and head (LPS: DICOM, NRRD, MetaImage), or to right, front and head (RAS: NIfTI)."""

import numpy as np

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # and back
