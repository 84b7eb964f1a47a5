"""What the caller has (path, bytes, nibabel image or array) -> the bytes of a NIfTI file, and back."""

import gzip
import os
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage
from nibabel.wrapstruct import WrapStructError

from medimageparse_client.errors import InvalidVolume

Volume: TypeAlias = "str | os.PathLike[str] | bytes | SpatialImage | npt.NDArray[Any]"

SUFFIXES = (".nii", ".nii.gz")
MAX_BYTES = 2**31 - 2**20  # one gRPC message, less its other fields
GZIP_MAGIC = b"\x1f\x8b"
NIBABEL_ERRORS = (HeaderDataError, ImageFileError, WrapStructError, OSError, ValueError)


def encode_volume(volume: Volume, affine: npt.ArrayLike | None = None) -> bytes:
    """The bytes of a .nii or .nii.gz file that holds `volume`; `affine` belongs to arrays, and only to them."""
    if isinstance(volume, np.ndarray):
        data = encode_image(image_of_array(volume, affine))
    elif affine is not None:
        raise InvalidVolume("affine belongs to a numpy array; a NIfTI file or nibabel image has its own")
    elif isinstance(volume, SpatialImage):
        data = encode_image(volume)
    elif isinstance(volume, bytes | bytearray | memoryview):
        data = bytes(volume)
    elif isinstance(volume, str | os.PathLike):
        data = read_file(Path(volume))
    else:
        raise InvalidVolume("a volume is a path, bytes, a nibabel image or a numpy array with affine")
    if not is_nifti(data):
        raise InvalidVolume("this is not a NIfTI file; send a .nii or .nii.gz")
    if len(data) > MAX_BYTES:
        raise InvalidVolume("the volume is over 2 GiB, more than one request carries; send it as .nii.gz or crop it")
    return data


def read_file(path: Path) -> bytes:
    """The file's bytes as they are."""
    if not path.name.lower().endswith(SUFFIXES):
        raise InvalidVolume("the file is not a .nii or .nii.gz; convert it first, for example with dcm2niix")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidVolume(f"the file cannot be read: {error.strerror or 'no reason given'}") from error


def image_of_array(array: npt.NDArray[Any], affine: npt.ArrayLike | None) -> nib.Nifti1Image:
    """A NIfTI image of `array`, its axes as they are, in a voxel type that NIfTI has."""
    if affine is None:
        raise InvalidVolume("a numpy array needs affine=, the 4 x 4 matrix from voxels to millimetres (RAS+)")
    matrix = np.asarray(affine, np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.linalg.det(matrix[:3, :3]):
        raise InvalidVolume("affine is not an invertible 4 x 4 matrix of finite numbers")
    if array.dtype.kind not in "buif":
        raise InvalidVolume(f"arrays of {array.dtype} have no place in a NIfTI file; use integers or floats")
    image = nib.Nifti1Image(array.astype(nifti_dtype(array), copy=False), matrix)
    image.header.set_xyzt_units("mm")
    return image


def nifti_dtype(array: npt.NDArray[Any]) -> npt.DTypeLike:
    """The voxel type for `array`: its own, or the next one that NIfTI readers know."""
    if array.dtype == np.bool_:
        return np.uint8
    if array.dtype == np.float16:
        return np.float32
    if array.dtype in (np.int64, np.uint64):
        limits = np.iinfo(np.int32)
        fits = not array.size or (limits.min <= array.min() and array.max() <= limits.max)
        return np.int32 if fits else np.float64
    return array.dtype if array.dtype.itemsize <= 8 else np.float64


def encode_image(image: SpatialImage) -> bytes:
    """A nibabel image of any format as the bytes of a .nii file."""
    try:
        nifti = image if isinstance(image, nib.Nifti1Image) else nib.Nifti1Image.from_image(image)
        return nifti.to_bytes()
    except NIBABEL_ERRORS as error:
        raise InvalidVolume("the image does not fit into a NIfTI file, or its voxels cannot be read") from error


def is_nifti(data: bytes) -> bool:
    """Whether `data` begins like a .nii.gz, or like a .nii of version 1 or 2 in either byte order."""
    header_sizes = {int.from_bytes(data[:4], order) for order in ("little", "big")}
    return data.startswith(GZIP_MAGIC) or bool(header_sizes & {348, 540})


def decode_nifti(data: bytes) -> nib.Nifti1Image:
    """The image in the bytes of a .nii or .nii.gz file."""
    try:
        data = gzip.decompress(data) if data.startswith(GZIP_MAGIC) else data
        is_version_2 = 540 in (int.from_bytes(data[:4], "little"), int.from_bytes(data[:4], "big"))
        return (nib.Nifti2Image if is_version_2 else nib.Nifti1Image).from_bytes(data)
    except (*NIBABEL_ERRORS, EOFError, zlib.error) as error:
        raise InvalidVolume("the NIfTI file is damaged") from error
