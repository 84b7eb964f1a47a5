"""One slice of a NIfTI volume -> the picture that radiologists look at; labels -> back into the volume.

Needs scipy.
"""

import gzip
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from nibabel.orientations import io_orientation
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from scipy import ndimage

from medimageparse_client.errors import InvalidImage
from medimageparse_client.formats.grey_slice import GreySlice, find_percentiles, scale_to_255
from medimageparse_client.formats.nifti import is_invertible
from medimageparse_client.formats.voxels import HEADERS, StoredAxis, read, read_layout, unpack, voxels_of
from medimageparse_client.formats.windows import WINDOWS, Window

PLANES = ("sagittal", "coronal", "axial")  # by the direction that lies nearest across it: right, anterior, superior
# which of these directions falls down the picture, and to its right: the patient's right, or front, is on the left
DOWN, ACROSS = (2, 2, 1), (1, 0, 0)
LONGEST_SIDE = 4096  # pixels of a picture whose pixels are made as high as wide
LIKE_CT = -500  # a value below is none of MR, PET or ultrasound
NO_SIDES = (
    "the file does not say how the patient lies; the slice is shown as if its axes went left, anterior and superior. "
    "If the preview is turned, store the volume with an affine"
)
NO_WINDOW = (
    "the slice has values as CT has in Hounsfield units, and no window was named, so that all but bone and organs is "
    "black; name one (--window)"
)


@dataclass(frozen=True)
class View:
    """How a plane of two stored axes becomes the picture: first turned, so that the later axis goes down, then flipped.

    is_flipped: whether rows are, and columns
    """

    is_turned: bool
    is_flipped: tuple[bool, bool]

    def show(self, plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self._flip(plane.T if self.is_turned else plane)

    def restore(self, picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
        plane = self._flip(picture)
        return plane.T if self.is_turned else plane

    def _flip(self, plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.flip(plane, [axis for axis in (0, 1) if self.is_flipped[axis]])


@dataclass(frozen=True, eq=False)
class VolumeSlice(GreySlice):
    """A slice of a volume, scaled to 0..255 and turned as radiologists look at it.

    size: rows and columns of the picture in the volume's own voxels; in `grey` they are as high as wide
    volume: the bytes of the NIfTI file
    bounds: the values that became black and white; what lies outside was cut off
    pixel_mm: height and width of a voxel in the picture
    warnings: sentences for the report
    """

    KEY: ClassVar[Literal["slice"]] = "slice"  # in the report

    size: tuple[int, int]
    volume: bytes = field(repr=False)
    number: int
    axis: StoredAxis
    plane: str
    view: View
    pixel_mm: tuple[float, float]
    bounds: tuple[float, float]
    window: Window | None
    warnings: tuple[str, ...] = ()

    @property
    def own_shape(self) -> tuple[int, int]:
        return self.size

    def describe(self) -> dict[str, Any]:
        """What was done to the slice, for the report."""
        height, width = self.own_shape
        place = {"number": self.number, "axis": self.axis, "plane": self.plane, "pixel_mm": list(self.pixel_mm)}
        return {"height": height, "width": width, **place, "window": self.window, "bounds": list(self.bounds)}

    def encode_labels(self, label_map: npt.NDArray[np.unsignedinteger[Any]], ending: str) -> bytes:
        """Labels [H,W] as a .nii or .nii.gz with the voxels of the whole volume; 0 on all other slices."""
        shape = read_layout(self.volume).shape
        labels = np.zeros(shape, label_map.dtype, order="F")
        np.moveaxis(labels, self.axis, 0)[self.number] = self.view.restore(label_map)
        header = header_of_labels(self.volume, labels)
        start = header.binaryblock + bytes(header.single_vox_offset - header.sizeof_hdr)  # without extensions
        content = start + labels.astype(header.get_data_dtype()).tobytes(order="F")
        return content if ending == ".nii" else gzip.compress(content, mtime=0)


def read_volume_slice(volume: bytes, number: int, axis: StoredAxis, window: Window | None) -> VolumeSlice:
    """Slice `number`, from 0, along a stored axis of a NIfTI file of one volume.

    window: of CT in Hounsfield units; without one, all between the 0.5 and 99.5 percentiles of the values above 0
    """
    affine, sides_known = affine_of(volume)
    values = plane_of(volume, number, axis)
    if window is not None and window not in WINDOWS:
        raise InvalidImage(f"the window is unknown; name one of {', '.join(WINDOWS)}")
    bounds = WINDOWS[window] if window else find_percentiles(values)
    plane, view, pixel_mm = find_view(affine, axis)
    warnings = [] if sides_known else [NO_SIDES]
    if window is None and values.min() < LIKE_CT:
        warnings.append(NO_WINDOW)
    shown = view.show(scale_to_255(values, bounds))
    height, width = shown.shape
    grey = with_square_pixels(shown, pixel_mm)
    return VolumeSlice(
        grey, (height, width), volume, number, axis, plane, view, pixel_mm, bounds, window, tuple(warnings)
    )


def plane_of(volume: bytes, number: int, axis: StoredAxis) -> npt.NDArray[np.float64]:
    """The values of a slice, scaled as the header says."""
    layout = read_layout(volume)
    if axis not in (0, 1, 2):
        raise InvalidImage("the axis of a slice is 0, 1 or 2, as the file stores them")
    if not 0 <= number < layout.shape[axis]:
        raise InvalidImage(f"there is no slice {number} along axis {axis}; the last one is {layout.shape[axis] - 1}")
    if layout.dtype.kind not in "iuf":
        raise InvalidImage("the volume's voxels are colours or complex numbers; a slice of grey values is needed")
    stored = np.take(voxels_of(read(volume, layout.end), layout), number, axis)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = apply_read_scaling(stored, layout.slope, layout.intercept) if layout.is_scaled else stored
        values = np.asarray(scaled, np.float64)
    if not np.isfinite(values).all():
        raise InvalidImage("the slice has values that are NaN or infinite; replace them, for example by that of air")
    return values


def header_in(volume: bytes) -> Any:
    kind, order = HEADERS[bytes(unpack(volume, 4)[:4])]
    return kind(read(volume, kind.sizeof_hdr), order, check=False)


def header_of_labels(volume: bytes, labels: npt.NDArray[np.unsignedinteger[Any]]) -> Any:
    """The volume's header for labels, with its place in the patient and none of its texts."""
    header = header_in(volume)
    header.set_data_dtype(labels.dtype)
    header.set_data_shape(labels.shape)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"] = header["cal_max"] = 0
    header["intent_code"], header["vox_offset"] = 0, header.single_vox_offset
    for name in ("descrip", "aux_file", "intent_name"):
        header[name] = b""
    return header


def affine_of(volume: bytes) -> tuple[npt.NDArray[np.float64], bool]:
    """Voxels to mm (RAS+), and whether the file says so: the sform before the qform, else the zooms as LAS."""
    header = header_in(volume)
    for form in (header.get_sform, header.get_qform):
        try:
            affine, code = form(coded=True)
        except (HeaderDataError, ValueError):
            continue
        if affine is not None and code > 0 and is_invertible(affine):
            return affine, True
    sizes = [float(size) if np.isfinite(size) and size > 0 else 1.0 for size in header["pixdim"][1:4]]
    return np.diag([-sizes[0], *sizes[1:], 1.0]), False


def find_view(affine: npt.NDArray[np.float64], axis: StoredAxis) -> tuple[str, View, tuple[float, float]]:
    """Of a slice across a stored axis: the nearest plane, what makes the picture of it, and its pixels in mm."""
    directions = io_orientation(affine)  # of each stored axis: which of right, anterior, superior, and 1 or -1
    nearest = int(directions[axis, 0])
    first, second = (other for other in range(3) if other != axis)
    is_turned = bool(directions[first, 0] != DOWN[nearest])
    rows, columns = (second, first) if is_turned else (first, second)
    is_flipped = bool(directions[rows, 1] > 0), bool(directions[columns, 1] > 0)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return PLANES[nearest], View(is_turned, is_flipped), (float(sizes[rows]), float(sizes[columns]))


def with_square_pixels(grey: npt.NDArray[np.float64], pixel_mm: tuple[float, float]) -> npt.NDArray[np.float64]:
    """The picture with pixels as high as wide, as small as the smaller side of a voxel; linear between voxels."""
    sides = np.array(grey.shape) * pixel_mm
    pixel = max(min(pixel_mm), sides.max() / LONGEST_SIDE)
    shape = np.maximum(1, np.rint(sides / pixel))
    if tuple(shape) == grey.shape:
        return grey
    return np.asarray(ndimage.zoom(grey, shape / grey.shape, order=1, mode="nearest", grid_mode=True))
