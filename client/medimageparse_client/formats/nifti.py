"""What the caller has (path, bytes, nibabel image or array) -> the bytes of a NIfTI file."""

import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage

from medimageparse_client.errors import InvalidVolume
from medimageparse_client.formats import volume_file
from medimageparse_client.formats.attached import Attached
from medimageparse_client.formats.voxels import is_nifti, one_volume

if TYPE_CHECKING:
    from medimageparse_client.formats.series import DicomSeries

Volume: TypeAlias = "str | os.PathLike[str] | bytes | SpatialImage | npt.NDArray[Any] | DicomSeries"

SUFFIXES = (".nii", ".nii.gz")
MAX_BYTES = 2**31 - 2**20  # one gRPC message, less its other fields
UNREADABLE = (HeaderDataError, ImageFileError, OSError, EOFError, ValueError, zlib.error)  # what nibabel raises


def encode_volume(volume: Volume, affine: npt.ArrayLike | None = None, time_point: int | None = None) -> bytes:
    """The bytes of a .nii or .nii.gz file that holds `volume`, or of a 4D one that of `time_point`.

    `affine` belongs to arrays, and only to them.
    """
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
    if read := volume_file.reader_of(data):
        data = encode_image(image_of_attached(read(data)))
    if not is_nifti(data):
        raise InvalidVolume("this is not a NIfTI file, nor .nrrd or .mha; send one of these")
    data = one_volume(data, time_point)
    if len(data) > MAX_BYTES:
        raise InvalidVolume("the volume is over 2 GiB, more than one request carries; send it as .nii.gz or crop it")
    return data


def read_file(path: Path) -> bytes:
    """The file's bytes as they are."""
    if path.is_dir():
        raise InvalidVolume("this is a folder without DICOM; name a file in it")
    if path.is_file() and not (path.name.lower().endswith(volume_file.SUFFIXES) or volume_file.recognizes(path)):
        raise InvalidVolume("the file is no .nii, .nii.gz, .nrrd or .mha; convert it first, for example with dcm2niix")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidVolume(f"the file cannot be read: {error.strerror or 'no reason given'}") from error


def image_of_array(array: npt.NDArray[Any], affine: npt.ArrayLike | None) -> nib.Nifti1Image:
    """A NIfTI image of `array`, its axes as they are, in a voxel type that NIfTI has."""
    if affine is None:
        raise InvalidVolume("a numpy array needs affine=, the 4 x 4 matrix from voxels to millimetres (RAS+)")
    matrix = np.asarray(affine, np.float64)
    if not is_invertible(matrix):
        raise InvalidVolume("affine is not an invertible 4 x 4 matrix of finite numbers")
    image = nib.Nifti1Image(as_nifti_type(array), matrix)
    image.header.set_xyzt_units("mm")
    return image


def image_of_attached(read: Attached) -> nib.Nifti1Image:
    """Without an affine the server warns that nobody knows which side is left."""
    if read.affine is not None:
        return image_of_array(read.voxels, read.affine)
    image = nib.Nifti1Image(as_nifti_type(read.voxels), None)
    if (read.spacings > 0).all() and np.isfinite(read.spacings).all():
        image.header.set_zooms(read.spacings)
    image.header.set_xyzt_units("mm")
    return image


def is_invertible(matrix: npt.NDArray[Any]) -> bool:
    return bool(matrix.shape == (4, 4) and np.isfinite(matrix).all() and np.linalg.det(matrix[:3, :3]))


def as_nifti_type(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind not in "buif":
        raise InvalidVolume(f"arrays of {array.dtype} have no place in a NIfTI file; use integers or floats")
    return array.astype(nifti_dtype(array), copy=False)


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
    """A nibabel image of any format as the bytes of a .nii file; a header that only the server can read stays."""
    try:
        if isinstance(image, nib.Nifti1Pair):
            return as_single_file(image).to_bytes()
        return image_of_image(image).to_bytes()
    except UNREADABLE as error:
        raise InvalidVolume("the image does not fit into a NIfTI file, or its voxels cannot be read") from error


def as_single_file(image: nib.Nifti1Pair) -> nib.Nifti1Image:
    """A NIfTI image, or a .hdr and .img pair, as what a .nii holds."""
    kind = nib.Nifti2Image if isinstance(image.header, nib.Nifti2Header) else nib.Nifti1Image
    header = kind.header_class(image.header.binaryblock, image.header.endianness, check=False)
    affine = image.affine if is_moved(image) else None
    return kind(image.dataobj, affine, header)  # type: ignore[no-untyped-call]


def is_moved(image: nib.Nifti1Pair) -> bool:
    """Whether an image has an affine of its own, which nibabel then writes over that of the header."""
    if image.affine is None or not is_invertible(image.affine):
        return False
    try:
        return not np.allclose(image.affine, image.header.get_best_affine())
    except (HeaderDataError, ValueError):
        return False  # nibabel cannot use this header; the server may


def image_of_image(image: SpatialImage) -> nib.Nifti1Image:
    """An image of another format; without an affine the server says that the sides are not known."""
    voxels = np.asanyarray(image.dataobj)
    if image.affine is None:
        return nib.Nifti1Image(as_nifti_type(voxels), None)
    return image_of_array(voxels, image.affine)
