"""What a person is told while a volume waits: how many slices it has, as far as its header says."""

from typing import Any

import nibabel as nib
from medimageparse_contract.slice_axis import choose_slice_axis
from nibabel.orientations import io_orientation
from numpy.linalg import LinAlgError

from medimageparse_client.cli.kinds import Loaded
from medimageparse_client.formats import voxels
from medimageparse_client.formats.nifti import UNREADABLE


def count_slices(source: Loaded, orientation: str, slice_axis: str) -> int | None:
    """Of a NIfTI file by the server's rule; None for what is to be read before one knows."""
    if isinstance(source, bytes | str) or not voxels.recognizes(source):
        return None
    try:
        image: Any = nib.load(source)
        stored: list[int] = [int(n) for n in image.shape[:3]]
        axes = [int(axis) for axis in io_orientation(image.affine)[:3, 0]] if orientation == "LAS" else [0, 1, 2]
        shape = [stored[axes.index(axis)] for axis in (2, 1, 0)]
    except (*UNREADABLE, LinAlgError):
        return None
    return shape[choose_slice_axis(shape, slice_axis)]
