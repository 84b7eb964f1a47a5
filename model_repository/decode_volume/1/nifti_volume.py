"""A NIfTI file in memory -> slices for the networks, and the geometry that leads back to the file."""

import binascii
import contextlib
import gzip
import io
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from intensity_scaling import INTENSITIES, scale_intensity
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.orientations import aff2axcodes, axcodes2ornt, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

OUTPUTS = ("nifti_file", "label_map")
CHOICES = {
    "intensity": INTENSITIES,
    "orientation": ("LAS", "stored"),
    "slice_axis": ("auto", "0", "1", "2"),
    "output": ("all", *OUTPUTS),
}

MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}  # NIfTI's codes for metre, millimetre, micrometre; unknown counts as mm
FARTHEST_MM = 1e9  # an affine that reaches farther is garbage, NaN too
GZIP = b"\x1f\x8b"
DEFLATE_RATIO = 1032  # no gzip unpacks to more times its bytes than this
SEND = "send a NIfTI file (.nii or .nii.gz), as it is or in base64"
DAMAGED = "image is truncated or damaged: the file ends before its last voxel; send it again"

# What leads the label map back to the patient. No text field of the file is copied.
GEOMETRY_FIELDS = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


@dataclass(frozen=True)
class Limits:
    """The largest image that is taken; checked before memory for it is."""

    max_image_bytes: int
    max_decompressed_bytes: int
    max_voxels: int
    max_side: int
    max_slices: int


@dataclass(frozen=True)
class Options:
    """The caller's choices, each with the default that stands for leaving it out."""

    intensity: str = "auto"
    orientation: str = "LAS"
    slice_axis: str = "auto"
    output: str = "all"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is unknown; send one of {', '.join(choices)}, or leave it out")


def decode_volume(image: bytes, options: Options, limits: Limits) -> tuple[NDArray[Any], dict[str, Any]]:
    """File -> volume [D,H,W], UINT8 or FP32 with values meant as 0..255, and its geometry."""
    if len(image) > limits.max_image_bytes:
        raise ValueError(f"image has more than {limits.max_image_bytes} bytes, the limit of this server")
    file = find_file(image)
    with refusing_damaged(), open_file(file) as stream:
        header = read_header(stream)
        shape, dtype = check_header(header, limits)  # (x, y, z)
        affine = usable_affine(header)
        axes, flipped = network_axes(affine, options.orientation)
        slice_axis = choose_slice_axis([shape[axis] for axis in axes], options.slice_axis)
        if shape[axes[slice_axis]] > limits.max_slices:
            raise ValueError(f"image has more than {limits.max_slices} slices, the limit of this server; crop it")
        n_bytes = math.prod(shape) * dtype.itemsize
        if n_bytes > DEFLATE_RATIO * len(file):
            raise ValueError(DAMAGED)
        # from here on the amount of memory is known: what a small file unpacks to is not
        skip_to_voxels(stream, header)
        stored = np.frombuffer(read_voxels(stream, n_bytes), dtype).reshape(shape, order="F")
    axes.insert(0, axes.pop(slice_axis))
    flipped.insert(0, flipped.pop(slice_axis))
    volume, intensity = scale_intensity(orient(stored, axes, flipped), *slope_and_intercept(header), options.intensity)
    geometry = {
        "nifti_version": 2 if isinstance(header, Nifti2Header) else 1,
        "fields": {name: header[name].tolist() for name in GEOMETRY_FIELDS},
        "pixdim": header["pixdim"][:4].tolist(),
        "spatial_units": int(header["xyzt_units"]) & 7,
        "shape": list(stored.shape),
        "dtype": stored.dtype.name,
        "affine_mm": None if affine is None else affine.tolist(),
        "stored_orientation": None if affine is None else "".join(aff2axcodes(affine)),
        "orientation": options.orientation,
        "slice_axis": slice_axis,
        "axes": axes,
        "flipped": flipped,
        "intensity": intensity,
        "outputs": OUTPUTS if options.output == "all" else (options.output,),
    }
    return volume, geometry


def find_file(image: bytes) -> bytes:
    """The NIfTI file, in gzip or not, as it was before base64."""
    if not looks_like_nifti(image):
        image = decode_base64(image)
    if not looks_like_nifti(image):
        raise ValueError(f"image is not a NIfTI file; {SEND}")
    return image


@contextlib.contextmanager
def refusing_damaged() -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(DAMAGED) from error


def open_file(file: bytes) -> io.BufferedIOBase:
    stream = io.BytesIO(file)
    return gzip.GzipFile(fileobj=stream) if file[:2] == GZIP else stream


def looks_like_nifti(image: bytes) -> bool:
    """gzip, or the header size of NIfTI-1 (348) or NIfTI-2 (540) in either byte order."""
    return image[:2] == GZIP or header_byte_order(image) is not None


def header_byte_order(start: bytes) -> tuple[int, str] | None:
    for size in (348, 540):
        for order, name in (("<", "little"), (">", "big")):
            if start[:4] == size.to_bytes(4, name):  # type: ignore[arg-type]
                return size, order
    return None


def decode_base64(image: bytes) -> bytes:
    try:
        return binascii.a2b_base64(image.translate(None, b" \t\r\n"), strict_mode=True)
    except binascii.Error as error:
        raise ValueError(f"image is neither a NIfTI file nor valid base64; {SEND}") from error


def read_header(stream: io.BufferedIOBase) -> Nifti1Header:
    start = stream.read(348)
    found = header_byte_order(start)
    if found is None:
        raise ValueError(f"image is not a NIfTI file; {SEND}")
    size, order = found
    start += stream.read(size - len(start))
    if len(start) < size:
        raise EOFError
    kind = Nifti1Header if size == 348 else Nifti2Header
    header = kind(start, endianness=order, check=False)  # type: ignore[no-untyped-call]
    if header["magic"].item()[:3] not in (b"n+1", b"n+2"):
        raise ValueError(f"image is a header without its voxels, or Analyze; {SEND}")
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1  # qfac: the standard reads 0 as 1
    return header


def check_header(header: Nifti1Header, limits: Limits) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape of the one volume in the file and the type of its voxels."""
    n_dimensions = int(header["dim"][0])
    sizes = [int(size) for size in header["dim"][1:8]]
    if not 1 <= n_dimensions <= 7 or min(sizes[:n_dimensions]) < 1:
        raise ValueError("image has a header without a valid shape; send a 3D NIfTI volume")
    if n_dimensions < 3 or max(sizes[3:n_dimensions], default=1) > 1:
        raise ValueError("image is not one 3D volume; send a 3D NIfTI volume (one time point, one channel)")
    shape = tuple(sizes[:3])
    if math.prod(shape) > limits.max_voxels or max(shape) > limits.max_side:
        raise ValueError(
            f"image is larger than this server takes, {limits.max_voxels} voxels and {limits.max_side} along a side; "
            "crop or resample it"
        )
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise ValueError("image has voxels of an unknown type; send integers or floats") from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ValueError("image has complex, RGB or extended voxels; send integers or floats of at most 64 bits")
    if math.prod(shape) * dtype.itemsize > limits.max_decompressed_bytes:
        raise ValueError(
            f"image has more than {limits.max_decompressed_bytes} bytes of voxels, the limit of this server; "
            "store it with fewer bytes a voxel, or crop it"
        )
    return shape, dtype


def skip_to_voxels(stream: io.BufferedIOBase, header: Nifti1Header) -> None:
    """Skips what may lie between header and voxels: extensions."""
    start = header.single_vox_offset
    offset = float(header["vox_offset"]) or start
    if not start <= offset <= 2**24:
        raise ValueError("image has a header whose voxels begin nowhere; send a single-file NIfTI volume")
    stream.read(int(offset) - int(header["sizeof_hdr"]))


def read_voxels(stream: io.BufferedIOBase, n_bytes: int) -> bytes:
    data = stream.read(n_bytes)
    if len(data) < n_bytes:
        raise EOFError
    stream.read(1)  # reaches the checksum of a gzip file
    return data


def slope_and_intercept(header: Nifti1Header) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0  # the standard: not scaled
    if not math.isfinite(intercept):
        raise ValueError("image has a header with a slope but no valid intercept; set scl_inter")
    return slope, intercept


def usable_affine(header: Nifti1Header) -> NDArray[np.float64] | None:
    """Voxel (x, y, z) -> mm in RAS+: sform, else qform, else the zooms stored as LAS (nibabel). None if singular."""
    try:
        with np.errstate(all="ignore"):  # of garbage: what comes out is checked
            affine = np.asarray(header.get_best_affine(), np.float64)
            affine[:3] *= MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    except (HeaderDataError, ValueError):  # quaternions of no rotation
        return None
    if not (np.abs(affine) < FARTHEST_MM).all() or np.isnan(io_orientation(affine)).any():
        return None
    return affine


def network_axes(affine: NDArray[np.float64] | None, orientation: str) -> tuple[list[int], list[bool]]:
    """For each axis of (z, y, x): the stored axis it comes from, and whether that is reversed."""
    axes, flipped = [0, 1, 2], [False, False, False]
    if affine is not None and orientation == "LAS":
        transform = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(orientation)))
        for stored, (axis, direction) in enumerate(transform):
            axes[int(axis)], flipped[int(axis)] = stored, bool(direction < 0)
    return axes[::-1], flipped[::-1]


def choose_slice_axis(shape: list[int], slice_axis: str) -> int:
    """The published rule: the first axis if the other two are alike, else the shortest."""
    if slice_axis != "auto":
        return int(slice_axis)
    _, height, width = shape
    return 0 if 2 * abs(height - width) / (height + width) < 0.5 else shape.index(min(shape))


def orient(stored: NDArray[Any], axes: list[int], flipped: list[bool]) -> NDArray[Any]:
    """The stored voxels seen as [D,H,W]; no copy."""
    return np.flip(stored.transpose(axes), [axis for axis in range(3) if flipped[axis]])
