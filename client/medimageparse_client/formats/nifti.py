"""What the caller has (path, bytes, nibabel image or array) -> the bytes of a NIfTI file, and back."""

import math
import os
import re
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage
from nibabel.volumeutils import apply_read_scaling

from medimageparse_client.errors import InvalidVolume

Volume: TypeAlias = "str | os.PathLike[str] | bytes | SpatialImage | npt.NDArray[Any]"

SUFFIXES = (".nii", ".nii.gz")
MAX_BYTES = 2**31 - 2**20  # one gRPC message, less its other fields
# the first bytes of a .nii -> its header, and the order of its bytes
HEADERS: dict[bytes, tuple[Any, str]] = {
    kind.sizeof_hdr.to_bytes(4, order): (kind, order)
    for kind in (nib.Nifti1Header, nib.Nifti2Header)
    for order in ("little", "big")
}
GZIP = b"\x1f\x8b"
CHUNK = 2**14  # bytes of gzip that are unpacked at a time
ZEROS = re.compile(rb"\0*")
TRUNCATED = "the file is truncated: it ends before its last voxel or before the checksum of its gzip"
DAMAGED = "the file is damaged: its gzip cannot be unpacked"
CHANGED = "the gzip checksum does not fit: the file was changed or damaged in transfer"
UNREADABLE = (HeaderDataError, ImageFileError, OSError, EOFError, ValueError, zlib.error)  # what nibabel raises


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
    if path.is_file() and not (path.name.lower().endswith(SUFFIXES) or recognizes(path)):
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
    if not is_invertible(matrix):
        raise InvalidVolume("affine is not an invertible 4 x 4 matrix of finite numbers")
    image = nib.Nifti1Image(as_nifti_type(array), matrix)
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


def is_nifti(data: bytes) -> bool:
    """Whether `data` begins like a .nii.gz, or like a .nii of version 1 or 2 in either byte order."""
    return data.startswith(GZIP) or data[:4] in HEADERS


def recognizes(path: Path) -> bool:
    """Whether the file at `path` holds a volume in NIfTI, whatever its name; False for what cannot be read."""
    try:
        if not path.is_file():  # a pipe would be empty afterwards
            return False
        with path.open("rb") as file:
            start = bytes(unpack(file.read(CHUNK), nib.Nifti2Header.sizeof_hdr))
    except (OSError, InvalidVolume):
        return False
    # the header alone, as beside an .img, says "ni1" or "ni2" there
    magic = start[344:348], start[4:8]
    return start[:4] in HEADERS and (magic[0] == b"n+1\0" or magic[1] == b"n+2\0")


def decode_voxels(data: bytes) -> npt.NDArray[Any]:
    """The values [x,y,z] in the bytes of a .nii or .nii.gz file, of every file that the server takes.

    The affine is not looked at: what the server made of it stands in its report.
    """
    magic = bytes(unpack(data, 4)[:4])
    if magic not in HEADERS:
        raise InvalidVolume("this is not a NIfTI file")
    kind, order = HEADERS[magic]
    header = kind(read(data, kind.sizeof_hdr), order, check=False)
    shape, offset = header.get_data_shape(), int(header["vox_offset"]) or header.single_vox_offset
    dtype = header.get_data_dtype()
    content = read(data, offset + math.prod(shape) * dtype.itemsize)
    voxels = np.frombuffer(content, dtype, math.prod(shape), offset).reshape(shape[:3], order="F")
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    is_scaled = slope != 0 and math.isfinite(slope)
    return apply_read_scaling(voxels, slope, intercept) if is_scaled else voxels


def read(data: bytes, n_bytes: int) -> memoryview:
    """The first `n_bytes` of what is in a file."""
    content = memoryview(unpack(data, n_bytes))[:n_bytes]
    if len(content) < n_bytes:
        raise InvalidVolume(TRUNCATED)
    return content


def unpack(data: bytes, n_bytes: int) -> bytes | bytearray:
    """At most the first `n_bytes` of what is in a file, in gzip or not; several gzip members are one stream.

    What stands behind the member that holds the last of these bytes is not looked at, as in the server.
    """
    if not data.startswith(GZIP):
        return data
    content, place = bytearray(), 0
    while len(content) < n_bytes and data.startswith(GZIP, place):
        member = zlib.decompressobj(wbits=31)
        while not member.eof and len(content) <= n_bytes:
            packed = data[place : place + CHUNK]
            if not packed:
                raise InvalidVolume(TRUNCATED)
            try:
                content += member.decompress(packed, n_bytes + 1 - len(content))
            except zlib.error as error:
                is_checksum = str(error).endswith(("incorrect data check", "incorrect length check"))
                raise InvalidVolume(CHANGED if is_checksum else DAMAGED) from error
            place += len(packed) - len(member.unconsumed_tail) - len(member.unused_data)
        place = ZEROS.match(data, place).end()  # type: ignore[union-attr]
    del content[n_bytes:]
    return content
