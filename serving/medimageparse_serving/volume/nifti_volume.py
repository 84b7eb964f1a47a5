"""A NIfTI file in memory -> slices for the networks, and the geometry that leads back to the file."""

import binascii
import contextlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from isal import isal_zlib
from medimageparse_contract import gzip_stream
from medimageparse_contract.options import INTENSITIES, ORIENTATIONS, SLICE_AXES
from medimageparse_contract.slice_axis import choose_slice_axis
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medimageparse_serving.refused import Refused
from medimageparse_serving.volume.geometry import Geometry, ImageReport
from medimageparse_serving.volume.intensity_scaling import scale_intensity
from medimageparse_serving.volume.nifti_geometry import Placement, read_geometry

CHOICES = {
    "intensity": INTENSITIES,
    "orientation": ORIENTATIONS,
    "slice_axis": SLICE_AXES,
}

SEND = "send a NIfTI file (.nii or .nii.gz), as it is or in base64"
TRUNCATED = "image is truncated: the file ends before its last voxel or before the checksum of its gzip; send it again"
GZIP_FAULTS = {
    "truncated": TRUNCATED,
    "damaged": "image is damaged: its gzip cannot be unpacked; send it again",
    "changed": (
        "image has a gzip checksum that does not fit: the file was changed or damaged in transfer; send it again"
    ),
}


@dataclass(frozen=True)
class Limits:
    """The largest volume that is taken. It is checked before memory is taken."""

    max_image_bytes: int
    max_decompressed_bytes: int
    max_voxels: int
    max_side: int
    max_slices: int


@dataclass(frozen=True)
class Options:
    """The caller's choices, each with the one that stands for leaving it out."""

    intensity: str = "auto"
    orientation: str = "LAS"
    slice_axis: str = "auto"


def decode_volume(image: bytes, options: Options, limits: Limits) -> tuple[NDArray[Any], Geometry]:
    """File -> volume [D,H,W], UINT8 or FP32 with values meant as 0..255, and its geometry."""
    if len(image) > limits.max_image_bytes:
        raise Refused(f"image has more than {limits.max_image_bytes} bytes, the limit of this server")
    file = find_file(image)
    header = read_header(file)
    shape, dtype = check_header(header, limits)  # (x, y, z)
    start = find_voxels(header)
    place = read_geometry(header)
    axes, flipped = network_axes(place, options.orientation)
    slice_axis = choose_slice_axis([shape[axis] for axis in axes], options.slice_axis)
    if shape[axes[slice_axis]] > limits.max_slices:
        raise Refused(f"image has more than {limits.max_slices} slices, the limit of this server; crop it")
    end = start + math.prod(shape) * dtype.itemsize
    if end > gzip_stream.DEFLATE_RATIO * len(file):
        raise Refused(TRUNCATED)
    # from here on the amount of memory is known: what a small file unpacks to is not
    content = unpack(file, end)
    if len(content) < end:
        raise Refused(TRUNCATED)
    stored = np.frombuffer(content, dtype, math.prod(shape), start).reshape(shape, order="F")
    axes.insert(0, axes.pop(slice_axis))
    flipped.insert(0, flipped.pop(slice_axis))
    voxels = orient(stored, axes, flipped)
    volume, intensity, doubts = scale_intensity(voxels, *slope_and_intercept(header), options.intensity)
    report = ImageReport(
        shape=list(stored.shape),
        dtype=stored.dtype.name,
        affine=place.affine.tolist(),
        affine_source=place.source,
        sides_known=place.sides_known,
        stored_orientation=place.stored_orientation,
        orientation=options.orientation,
        slice_axis=slice_axis,
        slice_axis_stored=axes[0],
        intensity=intensity,
    )
    return volume, Geometry(place.header, report, axes, flipped, [*place.warnings, *doubts])


def find_file(image: bytes) -> bytes:
    """The NIfTI file, in gzip or not, as it was before base64."""
    if not looks_like_nifti(image):
        image = decode_base64(image)
    if not looks_like_nifti(image):
        raise Refused(f"image is not a NIfTI file; {SEND}")
    return image


def unpack(file: bytes, n_bytes: int) -> bytes | bytearray:
    """At most the first `n_bytes` of what is in a file, in gzip or not."""
    with contextlib.suppress(gzip_stream.GzipFault):
        return gzip_stream.unpack(file, n_bytes, isal_zlib)
    try:  # zlib is the judge: isal finds some faults before the bytes that are asked for are out
        return gzip_stream.unpack(file, n_bytes)
    except gzip_stream.GzipFault as fault:
        raise Refused(GZIP_FAULTS[fault.kind]) from fault


def looks_like_nifti(image: bytes) -> bool:
    """gzip, or the header size of NIfTI-1 (348) or NIfTI-2 (540) in either byte order."""
    return image.startswith(gzip_stream.GZIP) or header_byte_order(image) is not None


def header_byte_order(start: bytes | bytearray) -> tuple[int, str] | None:
    for size in (348, 540):
        for order, name in (("<", "little"), (">", "big")):
            if start[:4] == size.to_bytes(4, name):  # type: ignore[arg-type]
                return size, order
    return None


def decode_base64(image: bytes) -> bytes:
    try:
        return binascii.a2b_base64(image.translate(None, b" \t\r\n"), strict_mode=True)
    except binascii.Error as error:
        raise Refused(f"image is neither a NIfTI file nor valid base64; {SEND}") from error


def read_header(file: bytes) -> Nifti1Header:
    """The header as it is in the file, without a check."""
    start = unpack(file, 348)
    found = header_byte_order(start)
    if found is None:
        raise Refused(f"image is not a NIfTI file; {SEND}")
    size, order = found
    start = unpack(file, size)[:size]
    if len(start) < size:
        raise Refused(TRUNCATED)
    kind = Nifti1Header if size == 348 else Nifti2Header
    header = kind(bytes(start), endianness=order, check=False)  # type: ignore[no-untyped-call]
    if header["magic"].item()[:3] not in (b"n+1", b"n+2"):
        raise Refused(f"image is a header without its voxels, or Analyze; {SEND}")
    return header


def check_header(header: Nifti1Header, limits: Limits) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape of the one volume in the file and the type of its voxels."""
    n_dimensions = int(header["dim"][0])
    sizes = [int(size) for size in header["dim"][1:8]]
    if not 1 <= n_dimensions <= 7 or min(sizes[:n_dimensions]) < 1:
        raise Refused("image has a header without a valid shape; send a 3D NIfTI volume")
    if n_dimensions < 3 or max(sizes[3:n_dimensions], default=1) > 1:
        raise Refused("image is not one 3D volume; send a 3D NIfTI volume (one time point, one channel)")
    shape = tuple(sizes[:3])
    if math.prod(shape) > limits.max_voxels or max(shape) > limits.max_side:
        raise Refused(
            f"image is larger than this server takes, {limits.max_voxels} voxels and {limits.max_side} along a side; "
            "crop or resample it"
        )
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise Refused("image has voxels of an unknown type; send integers or floats") from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise Refused("image has complex, RGB or extended voxels; send integers or floats of at most 64 bits")
    if math.prod(shape) * dtype.itemsize > limits.max_decompressed_bytes:
        raise Refused(
            f"image has more than {limits.max_decompressed_bytes} bytes of voxels, the limit of this server; "
            "store it with fewer bytes a voxel, or crop it"
        )
    return shape, dtype


def find_voxels(header: Nifti1Header) -> int:
    """At which byte the voxels begin; extensions may lie between header and voxels."""
    start = header.single_vox_offset
    offset = float(header["vox_offset"]) or start
    if not start <= offset <= 2**24:
        raise Refused("image has a header whose voxels begin nowhere; send a single-file NIfTI volume")
    return int(offset)


def slope_and_intercept(header: Nifti1Header) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0  # the standard: not scaled
    if not math.isfinite(intercept):
        raise Refused("image has a header with a slope but no valid intercept; set scl_inter")
    return slope, intercept


def network_axes(place: Placement, orientation: str) -> tuple[list[int], list[bool]]:
    """For each axis of (z, y, x): the stored axis it comes from, and whether that is reversed."""
    axes, flipped = [0, 1, 2], [False, False, False]
    if place.stored_orientation is not None and orientation == "LAS":
        transform = ornt_transform(io_orientation(place.affine), axcodes2ornt(tuple(orientation)))
        for stored, (axis, direction) in enumerate(transform):
            axes[int(axis)], flipped[int(axis)] = stored, bool(direction < 0)
    return axes[::-1], flipped[::-1]


def orient(stored: NDArray[Any], axes: list[int], flipped: list[bool]) -> NDArray[Any]:
    """The stored voxels seen as [D,H,W]; no copy."""
    return np.flip(stored.transpose(axes), [axis for axis in range(3) if flipped[axis]])
