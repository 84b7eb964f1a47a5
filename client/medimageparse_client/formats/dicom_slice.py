"""A slice in a DICOM file -> the picture that BiomedParse's own reader makes of it; probabilities -> back to the slice.

Needs the extra `dicom`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels.processing import apply_modality_lut, apply_voi

from medimageparse_client.errors import InvalidImage
from medimageparse_client.formats.dicom_header import (
    PYDICOM_ERRORS,
    number_of,
    read_header,
    value_of,
    without_pydicoms_warnings,
)
from medimageparse_client.formats.dicom_padding import find_padding, lies_between
from medimageparse_client.formats.dicom_pixels import read_pixels
from medimageparse_client.formats.grey_slice import GreySlice, find_percentiles, scale_to_255
from medimageparse_client.formats.windows import WINDOWS, Window

# media storage classes of CT; for files that lack Modality
CT_STORAGE = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
HOUNSFIELD = ("HU", "HU_MOD", "US")  # rescale types; "US" (unspecified) is written for plain CT too


@dataclass(frozen=True, eq=False)
class DicomSlice(GreySlice):
    """A slice scaled to 0..255.

    grey: float64 [H,W], bright is dense
    bounds: values after rescaling (Hounsfield units in CT); what lies outside was cut off
    window: the name of `bounds`; None for percentiles
    is_inverted: whether the file shows low values bright (MONOCHROME1), so that they were inverted
    padding: the lowest and the highest stored value that is no part of the picture, and black; None without padding
    warnings: sentences for the report
    """

    KEY: ClassVar[Literal["dicom"]] = "dicom"  # in the report

    bounds: tuple[float, float]
    window: Window | None
    is_inverted: bool
    padding: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """What was done to the slice, for the report."""
        height, width = self.grey.shape
        used = {"window": self.window, "bounds": list(self.bounds), "inverted": self.is_inverted}
        padding = None if self.padding is None else list(self.padding)
        return {"height": height, "width": width, **used, "padding": padding}


@without_pydicoms_warnings()
def read_slice(data: bytes, window: Window | None) -> DicomSlice:
    """The one grey slice in the bytes of a DICOM file, CT through `window`, all else between percentiles."""
    header = read_header(data)
    is_ct = is_ct_slice(header)
    stored = read_pixels(data, header)
    values = rescale(stored.values, header, is_ct)
    warnings = list(stored.warnings)
    is_shown, padding = find_padding(stored, header, warnings)
    is_inverted = not is_ct and shows_low_values_bright(header, warnings)
    shown, hidden = values[is_shown], values[~is_shown]
    if not np.isfinite(shown).all():
        raise InvalidImage("the DICOM file's pixels are not one slice of finite numbers; send a PNG of it")
    if is_inverted:
        shown = shown.max() - shown
    bounds = choose_bounds(shown, is_ct, window)
    if padding and lies_between(padding, stored.values[is_shown]) and not (is_ct and hidden.max() <= bounds[0]):
        warnings.append(
            "the file's PixelPaddingValue lies between the values of other pixels; those that have it are black. If "
            "the preview has black specks, send a PNG"
        )
    grey = np.zeros(values.shape)
    grey[is_shown] = scale_to_255(shown, bounds)
    return DicomSlice(grey, bounds, window, is_inverted, padding, tuple(warnings))


def is_ct_slice(header: pydicom.Dataset) -> bool:
    """By the modality, or where that is left out by what the file says it stores."""
    modality = value_of(header, "Modality")
    return bool(
        modality == "CT" or (not modality and value_of(header.file_meta, "MediaStorageSOPClassUID") in CT_STORAGE)
    )


def rescale(stored: npt.NDArray[Any], header: pydicom.Dataset, is_ct: bool) -> npt.NDArray[np.float64]:
    """What the stored values stand for: Hounsfield units in CT."""
    if lut := value_of(header, "ModalityLUTSequence"):
        check_unit(value_of(lut[0], "ModalityLUTType"), is_ct)
        try:
            lut[0].LUTDescriptor[2] = 8 if lut[0].LUTDescriptor[2] <= 8 else 16  # pydicom takes no 12 bits
            # in 64 bits, so that differences from the first entry do not overflow
            return np.asarray(apply_modality_lut(stored.astype(np.int64), header), np.float64)
        except PYDICOM_ERRORS:
            raise InvalidImage(
                "the DICOM file's Modality LUT cannot be read, so its values are unknown; send a PNG of it"
            ) from None
    tags = find_rescale_tags(header)
    slope, intercept = number_of(tags, "RescaleSlope"), number_of(tags, "RescaleIntercept")
    if is_ct and (slope is None or intercept is None):
        raise InvalidImage("the CT slice has no rescale tags, so its Hounsfield units are unknown; send a PNG of it")
    if slope == 0:
        raise InvalidImage("the DICOM file's RescaleSlope is 0, so it is all one grey; correct the tag, or send a PNG")
    check_unit(value_of(tags, "RescaleType"), is_ct)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite then is refused
        return stored.astype(np.float64) * (1 if slope is None else slope) + (0 if intercept is None else intercept)


def find_rescale_tags(header: pydicom.Dataset) -> pydicom.Dataset:
    """The data set with the rescale tags: the header, or in enhanced files one inside."""
    for name in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in value_of(header, name) or ():
            for tags in value_of(group, "PixelValueTransformationSequence") or ():
                return tags if "RescaleSlope" in tags else header
    return header


def check_unit(unit: str | None, is_ct: bool) -> None:
    """Refuses CT in other units than the windows are in; files that name none are in Hounsfield units."""
    if is_ct and unit and unit not in HOUNSFIELD:
        raise InvalidImage("the CT slice's values are not Hounsfield units, in which windows are; send a PNG of it")


def shows_low_values_bright(header: pydicom.Dataset, warnings: list[str]) -> bool:
    """MONOCHROME1, or a Presentation LUT Shape INVERSE; a falling VOI LUT inverts it once more.

    DICOM has INVERSE for MONOCHROME1 only, and IDENTITY for MONOCHROME2 only: together they are one inversion.
    """
    photometric, shape = header.PhotometricInterpretation, value_of(header, "PresentationLUTShape")
    if (photometric, shape) in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")):
        warnings.append(
            f"{photometric} and the Presentation LUT Shape {shape} contradict each other in the file; low values were "
            "taken as bright. If bright and dark are swapped in the preview, send a PNG"
        )
    is_low_bright = photometric == "MONOCHROME1" or shape == "INVERSE"
    return bool(is_low_bright != has_falling_voi_lut(header))


def has_falling_voi_lut(header: pydicom.Dataset) -> bool:
    """Whether the lookup table for display goes down; as windows for display, it is not looked at otherwise."""
    try:
        n_entries, first, _ = header.VOILUTSequence[0].LUTDescriptor
        ends = apply_voi(np.array([first, first + (n_entries or 2**16) - 1], np.int32), header)
    except PYDICOM_ERRORS:
        return False
    return bool(ends[0] > ends[1])


def choose_bounds(pixels: npt.NDArray[np.float64], is_ct: bool, window: Window | None) -> tuple[float, float]:
    """The window of a CT slice; for all else the 0.5 and 99.5 percentiles of the pixels above 0."""
    if is_ct:
        if window not in WINDOWS:
            raise InvalidImage(f"a CT slice needs a window: one of {', '.join(WINDOWS)}")
        return WINDOWS[window]
    if window is not None:
        raise InvalidImage("window belongs to CT slices, and this DICOM file is none; leave it out")
    return find_percentiles(pixels)
