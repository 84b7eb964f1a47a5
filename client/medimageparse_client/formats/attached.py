"""What NRRD and MHA share: a text header, and after it in the same file the voxels, raw or packed."""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from medimageparse_contract import gzip_stream

from medimageparse_client.errors import InvalidVolume
from medimageparse_client.formats.geometry import LPS_TO_RAS
from medimageparse_client.formats.voxels import GZIP_FAULTS, TRUNCATED

MAX_HEADER = 2**20  # bytes
MAX_BYTES = 2**31 - 2**20  # of voxels, as of a request


@dataclass(frozen=True, eq=False)
class Attached:
    """
    voxels: [x,y,z]
    affine: [4,4] to mm (RAS+); None where the header does not say how the patient lies
    spacings: [3] in mm, where there is no affine; 0 where nobody knows
    """

    voxels: npt.NDArray[Any]
    affine: npt.NDArray[np.float64] | None = None
    spacings: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))


def unpack_raw(data: bytes, n_bytes: int) -> bytes:
    return data[:n_bytes]


def unpack_gzip(data: bytes, n_bytes: int) -> bytes | bytearray:
    if not data.startswith(gzip_stream.GZIP):
        raise InvalidVolume(GZIP_FAULTS["damaged"])
    try:
        return gzip_stream.unpack(data, n_bytes)
    except gzip_stream.GzipFault as error:
        raise InvalidVolume(GZIP_FAULTS[error.kind]) from error


def unpack_zlib(data: bytes, n_bytes: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, n_bytes + 1)  # one more than there are, so that the checksum is read too
    except zlib.error as error:
        raise InvalidVolume("the file is damaged: its voxels cannot be unpacked") from error
    if not stream.eof and len(content) <= n_bytes:
        raise InvalidVolume(TRUNCATED)
    return content[:n_bytes]


def voxels_of(
    data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], unpack: Callable[[bytes, int], bytes | bytearray]
) -> npt.NDArray[Any]:
    """The voxels [x,y,z] that stand behind a header; no more is unpacked than they take."""
    if len(shape) != 3 or min(shape) < 1:
        raise InvalidVolume("the file is not one 3D volume of one value a voxel")
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes > MAX_BYTES:
        raise InvalidVolume("the volume is over 2 GiB, more than one request carries; crop it")
    content = unpack(data, n_bytes)
    if len(content) < n_bytes:
        raise InvalidVolume(TRUNCATED)
    voxels = np.frombuffer(content, dtype).reshape(shape, order="F")
    return voxels.astype(dtype.newbyteorder("="), copy=False)


def placed(voxels: npt.NDArray[Any], directions: npt.NDArray[np.float64], origin: npt.NDArray[np.float64]) -> Attached:
    """Voxels in the patient; columns of `directions` are the steps of the axes in mm, all in LPS."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions, origin
    if not np.isfinite(affine).all() or not np.linalg.det(directions):
        raise InvalidVolume("the header does not say how the volume lies: its directions are no box")
    return Attached(voxels, LPS_TO_RAS @ affine)


def numbers(text: str, n: int) -> npt.NDArray[np.float64]:
    """Exactly `n` numbers."""
    try:
        found = np.array([float(part) for part in text.split()])
    except ValueError:
        found = np.empty(0)
    if found.size != n:
        raise InvalidVolume("the header is damaged: numbers are missing in it")
    return found


def sizes_of(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split())
    except ValueError:
        raise InvalidVolume("the header is damaged: its sizes are no whole numbers") from None
