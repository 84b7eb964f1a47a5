"""The bytes of a NIfTI file -> its voxels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, TypeAlias

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import igzip
from isal.igzip_lib import IsalError
from medimageparse_contract import gzip_stream
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from medimageparse_client.errors import InvalidVolume

StoredAxis: TypeAlias = Literal[0, 1, 2]

# the first bytes of a .nii -> its header, and the order of its bytes
HEADERS: dict[bytes, tuple[Any, str]] = {
    kind.sizeof_hdr.to_bytes(4, order): (kind, order)
    for kind in (nib.Nifti1Header, nib.Nifti2Header)
    for order in ("little", "big")
}
HEAD = 2**14  # bytes of a file that tell what it is
MAX_START = 2**16  # bytes before the labels of a map
TRUNCATED = "the file is truncated: it ends before its last voxel or before the checksum of its gzip"
GZIP_FAULTS = {
    "truncated": TRUNCATED,
    "damaged": "the file is damaged: its gzip cannot be unpacked",
    "changed": "the gzip checksum does not fit: the file was changed or damaged in transfer",
}


@dataclass(frozen=True)
class Layout:
    """How the voxels stand in a file.

    shape: (x, y, z), or (x, y, z, volumes)
    start, end: the bytes of the unpacked file that they take
    slope, intercept: what the stored values are to be scaled by; slope 0 or not finite leaves them as they are
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    slope: float
    intercept: float

    @property
    def end(self) -> int:
        return self.start + math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_scaled(self) -> bool:
        return self.slope != 0 and math.isfinite(self.slope) and (self.slope, self.intercept) != (1, 0)


def is_nifti(data: bytes) -> bool:
    """Whether `data` begins like a .nii.gz, or like a .nii of version 1 or 2 in either byte order."""
    return data.startswith(gzip_stream.GZIP) or data[:4] in HEADERS


def recognizes(path: Path) -> bool:
    """Whether the file at `path` holds a volume in NIfTI, whatever its name; False for what cannot be read."""
    try:
        if not path.is_file():  # a pipe would be empty afterwards
            return False
        with path.open("rb") as file:
            start = bytes(unpack(file.read(HEAD), nib.Nifti2Header.sizeof_hdr))
    except (OSError, InvalidVolume):
        return False
    # the header alone, as beside an .img, says "ni1" or "ni2" there
    magic = start[344:348], start[4:8]
    return start[:4] in HEADERS and (magic[0] == b"n+1\0" or magic[1] == b"n+2\0")


def read_layout(data: bytes) -> Layout:
    """Raises InvalidVolume for what is no NIfTI file of one volume."""
    layout = read_series_layout(data)
    if max(layout.shape[3:], default=1) > 1:
        raise InvalidVolume("the NIfTI file is not one 3D volume")
    return replace(layout, shape=layout.shape[:3])


def read_series_layout(data: bytes) -> Layout:
    """Of one volume or several; raises InvalidVolume for what is no NIfTI file."""
    magic = bytes(unpack(data, 4)[:4])
    if magic not in HEADERS:
        raise InvalidVolume("this is not a NIfTI file")
    kind, order = HEADERS[magic]
    header = kind(read(data, kind.sizeof_hdr), order, check=False)
    try:
        shape, dtype = tuple(map(int, header.get_data_shape())), header.get_data_dtype()
        start = int(header["vox_offset"]) or header.single_vox_offset
    except (HeaderDataError, ArithmeticError, LookupError, ValueError) as error:
        raise InvalidVolume("the header of the NIfTI file is damaged") from error
    if len(shape) < 3 or min(shape) < 1 or start < 0 or not dtype.itemsize:
        raise InvalidVolume("the NIfTI file is not one 3D volume")
    return Layout(shape, dtype, start, float(header["scl_slope"]), float(header["scl_inter"]))


def one_volume(data: bytes, time_point: int | None) -> bytes:
    """A file of one 3D volume; of a series that of `time_point`, from 0, with the header of the series.

    Raises InvalidVolume for a series without `time_point`, and for one that is not there. A header that cannot be read
    here is left to the server, which says more.
    """
    try:
        kind, order = HEADERS[bytes(unpack(data, 4)[:4])]
        header = kind(read(data, kind.sizeof_hdr), order, check=False)
        shape, item = tuple(map(int, header.get_data_shape())), header.get_data_dtype().itemsize
        start = int(header["vox_offset"]) or header.single_vox_offset
    except (InvalidVolume, HeaderDataError, ArithmeticError, LookupError, ValueError):
        return data
    n_volumes = math.prod(shape[3:])
    if min(shape, default=0) < 1 or (n_volumes == 1 and not time_point):
        return data
    if time_point is None:
        raise InvalidVolume(f"the file holds {n_volumes} volumes; choose one: time_point (--time-point) from 0 on")
    if not 0 <= time_point < n_volumes:
        raise InvalidVolume(f"there is no time point {time_point}; the last one is {n_volumes - 1}")
    size = math.prod(shape[:3]) * item
    content = read(data, start + (time_point + 1) * size)
    header.set_data_shape(shape[:3])
    return b"".join((header.binaryblock, content[kind.sizeof_hdr : start], content[start + time_point * size :]))


def decode_voxels(data: bytes) -> npt.NDArray[Any]:
    """The values [x,y,z] in the bytes of a .nii or .nii.gz file, of every file that the server takes.

    The affine is not looked at: what the server made of it stands in its report.
    """
    layout = read_layout(data)
    voxels = voxels_of(read(data, layout.end), layout)
    return apply_read_scaling(voxels, layout.slope, layout.intercept) if layout.is_scaled else voxels


def decode_label_map(data: bytes, shape: tuple[int, ...], n_labels: int) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Labels [x,y,z] of 0..n_labels in a .nii.gz file; no more is unpacked than a map of `shape` takes.

    Raises InvalidVolume for every other file.
    """
    labels = decode_map(data, shape, (np.uint8, np.uint16))
    if labels.max() > n_labels:
        raise InvalidVolume("it has more labels than prompts")
    return labels


def decode_map(data: bytes, shape: tuple[int, ...], dtypes: Sequence[npt.DTypeLike]) -> npt.NDArray[Any]:
    """What the server made, [x,y,z] or [x,y,z,P] of one of these types; no more is unpacked than that takes.

    Raises InvalidVolume for every other file.
    """
    n_bytes = math.prod(shape) * max(np.dtype(dtype).itemsize for dtype in dtypes)
    try:
        with igzip.open(BytesIO(data)) as file:  # type: ignore[no-untyped-call]
            content = file.read(MAX_START + n_bytes + 1)
    except (OSError, EOFError, IsalError) as error:  # type: ignore[misc]  # its stub says that it is one
        raise InvalidVolume(GZIP_FAULTS["damaged"]) from error
    layout = read_series_layout(content)
    if layout.shape != shape:
        raise InvalidVolume(f"it has {words(layout.shape)} voxels, and the volume {words(shape)}")
    if layout.dtype.newbyteorder("=") not in dtypes or layout.is_scaled or layout.end != len(content):
        raise InvalidVolume("it is not one label a voxel")
    return voxels_of(content, layout)


def voxels_of(content: bytes | memoryview, layout: Layout) -> npt.NDArray[Any]:
    return np.frombuffer(content, layout.dtype, math.prod(layout.shape), layout.start).reshape(layout.shape, order="F")


def words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def read(data: bytes, n_bytes: int) -> memoryview:
    """The first `n_bytes` of what is in a file."""
    content = memoryview(unpack(data, n_bytes))[:n_bytes]
    if len(content) < n_bytes:
        raise InvalidVolume(TRUNCATED)
    return content


def unpack(data: bytes, n_bytes: int) -> bytes | bytearray:
    """At most the first `n_bytes` of what is in a file, in gzip or not."""
    try:
        return gzip_stream.unpack(data, n_bytes)
    except gzip_stream.GzipFault as error:
        raise InvalidVolume(GZIP_FAULTS[error.kind]) from error
