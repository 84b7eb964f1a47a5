"""A slice in a DICOM file -> the picture that BiomedParse's own reader makes of it; probabilities -> back to the slice.

Needs the extra `dicom`. Of the header only TAGS are read, and none of their values but the window leaves this module.
"""

import struct
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image
from pydicom.errors import BytesLengthException, InvalidDicomError
from scipy import ndimage

from medimageparse_client.errors import InvalidImage
from medimageparse_client.image import Window

SIDE = 1024  # pixels of the network's square input

# in Hounsfield units; those of the published model
WINDOWS: dict[Window, tuple[float, float]] = {
    "abdomen": (-150, 250),
    "lung": (-1000, 1000),
    "pelvis": (-55, 200),
    "liver": (-25, 230),
    "colon": (-68, 187),
    "pancreas": (-100, 200),
}

# what it takes to know the pixels; nothing about the patient
TAGS: list[Any] = [
    "Modality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleIntercept",
    "RescaleSlope",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "PixelData",
]

PYDICOM_ERRORS = (
    InvalidDicomError,
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class DicomSlice:
    """A slice scaled to 0..255.

    grey: float64 [H,W], bright is dense
    bounds: values after rescaling (Hounsfield units in CT); what lies outside was cut off
    window: the name of `bounds`; None for percentiles
    is_inverted: whether the file shows low values bright (MONOCHROME1), and they were turned round
    """

    grey: npt.NDArray[np.float64] = field(repr=False)
    bounds: tuple[float, float]
    window: Window | None
    is_inverted: bool

    def square(self) -> npt.NDArray[np.uint8]:
        """The picture [1024,1024] that the network sees."""
        return resize_square(np.pad(self.grey, [(margin, margin) for margin in margins(self.grey.shape)]))

    def own_grid(self, square: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A map [side,side] over `square()` at the slice's pixels [H,W], bilinear; above 127.5 stays above 127.5."""
        (height, width), (top, left) = self.grey.shape, margins(self.grey.shape)
        row, column = square.shape[0] / (height + 2 * top), square.shape[1] / (width + 2 * left)
        box = (left * column, top * row, (left + width) * column, (top + height) * row)
        picture = Image.fromarray(square.astype(np.float32))
        sampled = picture.transform((width, height), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
        return np.asarray(np.ceil(np.asarray(sampled) - 0.5).astype(np.uint8))

    def describe(self) -> dict[str, Any]:
        """What was done to the slice, for the report."""
        height, width = self.grey.shape
        used = {"window": self.window, "bounds": list(self.bounds), "inverted": self.is_inverted}
        return {"height": height, "width": width, **used}


def read_slice(data: bytes, window: Window | None) -> DicomSlice:
    """The one grey slice in the bytes of a DICOM file, CT through `window`, all else between percentiles."""
    try:
        header = pydicom.dcmread(BytesIO(data), specific_tags=TAGS)
        check_is_grey_slice(header)
        is_ct = header.get("Modality") == "CT"
        is_inverted = header.PhotometricInterpretation == "MONOCHROME1" and not is_ct
        slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
        if is_ct and (slope is None or intercept is None):
            raise InvalidImage(
                "the CT slice has no rescale tags, so its Hounsfield units are unknown; send a PNG of it"
            )
        stored = np.asarray(header.pixel_array, np.float64)
        pixels = stored * float(1 if slope is None else slope) + float(0 if intercept is None else intercept)
    except PYDICOM_ERRORS:
        raise InvalidImage(
            "the DICOM file is damaged, or compressed in a way that pydicom cannot read here; send it uncompressed"
        ) from None  # pydicom's words can hold bytes of the header
    if pixels.ndim != 2 or not pixels.size or not np.isfinite(pixels).all():
        raise InvalidImage("the DICOM file's pixels are not one slice of finite numbers; send a PNG of it")
    if is_inverted:
        pixels = pixels.max() - pixels
    bounds = choose_bounds(pixels, is_ct, window)
    return DicomSlice(scale_to_255(pixels, bounds), bounds, window, is_inverted)


def check_is_grey_slice(header: pydicom.Dataset) -> None:
    """Refuses what is not one slice of grey pixels."""
    if not any(name in header for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise InvalidImage(
            "the DICOM file holds no picture or is cut short; send a whole file with one slice of an image"
        )
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        raise InvalidImage(f"the DICOM file holds {frames} frames; send one slice as a file of its own, or a PNG of it")
    if header.get("SamplesPerPixel", 1) != 1 or header.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise InvalidImage("the DICOM file is in colour; save the picture as PNG and send that")


def choose_bounds(pixels: npt.NDArray[np.float64], is_ct: bool, window: Window | None) -> tuple[float, float]:
    """The window of a CT slice; for all else the 0.5 and 99.5 percentiles of the pixels above 0."""
    if is_ct:
        if window not in WINDOWS:
            raise InvalidImage(f"a CT slice needs a window: one of {', '.join(WINDOWS)}")
        return WINDOWS[window]
    if window is not None:
        raise InvalidImage("window belongs to CT slices, and this DICOM file is none; leave it out")
    inside = pixels[pixels > 0]
    if not inside.size:
        raise InvalidImage("the slice has no pixel above 0; send one that shows something")
    low, high = np.percentile(inside, (0.5, 99.5))
    return float(low), float(high)


def scale_to_255(pixels: npt.NDArray[np.float64], bounds: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Clipped to `bounds`, then from the lowest to the highest value that is left."""
    clipped = np.clip(pixels, *bounds)
    low, high = clipped.min(), clipped.max()
    if low == high:
        raise InvalidImage("the slice is all one grey in this window; choose another window or slice")
    return np.asarray((clipped - low) / (high - low) * 255)


def margins(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns to add on either side; an odd difference leaves the square one pixel short, as upstream."""
    height, width = shape
    return max(0, (width - height) // 2), max(0, (height - width) // 2)


def resize_square(grey: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """To SIDE x SIDE as scikit-image resizes with order 3: blurred before it shrinks, cubic splines, black around."""
    factors = np.array(grey.shape) / SIDE
    blurred = grey
    if (factors > 1).any():
        blurred = ndimage.gaussian_filter(grey, np.maximum(0, (factors - 1) / 2), mode="grid-constant")
    resized = ndimage.zoom(blurred, 1 / factors, order=3, mode="grid-constant", grid_mode=True)
    return np.asarray(np.clip(resized, grey.min(), grey.max()).astype(np.uint8))
