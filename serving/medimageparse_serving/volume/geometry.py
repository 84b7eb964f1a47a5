"""The way from the networks' slices back to the file: `decode_volume` finds it, `encode_masks` goes it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class HeaderFields:
    """What the answer's header takes over from the file's, in the same bits where they are right."""

    nifti_version: int  # 1 or 2
    fields: dict[str, int | float | list[float]]  # of sform and qform
    pixdim: list[float]  # qfac, then the zooms of x, y, z
    spatial_units: int  # NIfTI's code


@dataclass(frozen=True)
class Intensity:
    """What was done to the values."""

    asked: str
    used: str
    bounds: list[float] | None  # the values that became 0 and 255; None if values were kept
    padding: list[float]  # values that count for nothing and became 0
    resized_as: str  # "uint8" or "float32"


@dataclass(frozen=True)
class ImageReport:
    """The `image` of the report. Axes are the stored ones, x, y, z, but for `slice_axis`: of (z, y, x) as turned."""

    shape: list[int]
    dtype: str
    affine: list[list[float]]  # [4,4], voxels to mm, RAS+
    affine_source: str
    sides_known: bool
    stored_orientation: str | None
    orientation: str
    slice_axis: int
    slice_axis_stored: int
    intensity: Intensity


@dataclass(frozen=True)
class Geometry:
    """axes and flipped: of each axis of the slices [D,H,W] the stored axis, and whether it is reversed."""

    header: HeaderFields
    image: ImageReport
    axes: list[int]
    flipped: list[bool]
    warnings: list[str]

    @property
    def voxel_ml(self) -> float:
        """The size of a voxel."""
        return abs(float(np.linalg.det(np.array(self.image.affine)[:3, :3]))) / 1000
