"""Which pixels of a DICOM slice belong to the picture: what its padding tags may mean.

Needs the extra `dicom`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from medimageparse_client.errors import InvalidImage
from medimageparse_client.formats.dicom_header import PYDICOM_ERRORS
from medimageparse_client.formats.dicom_pixels import StoredPixels

PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
FLOAT_PADDING = {
    "FloatPixelData": ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    "DoubleFloatPixelData": ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
}


def find_padding(
    stored: StoredPixels, header: pydicom.Dataset, warnings: list[str]
) -> tuple[npt.NDArray[np.bool_], tuple[float, float] | None]:
    """Which pixels belong to the picture, and the stored values of those that do not."""
    is_shown = np.ones(stored.values.shape, bool)
    used = None
    for low, high in padding_ranges(stored, header, warnings):
        is_padding = is_between(stored.values, low, high) | is_between(stored.whole, low, high)
        if is_padding.all():
            is_shown, used = ~is_padding, (low, high)
        elif is_padding.any():
            is_shown, used = ~is_padding, (low, high)
            break
    if not is_shown.any():
        raise InvalidImage(
            "every pixel of the slice is padding by the file's PixelPaddingValue; send another slice, or a PNG of it"
        )
    if stored.whole is not stored.values and (is_cut(stored) & is_shown).any():
        warnings.append(
            "some pixels use more bits than the file's BitsStored; these bits were left out, as DICOM asks. If the "
            "preview looks wrong, correct BitsStored"
        )
    return is_shown, used


def is_cut(stored: StoredPixels) -> npt.NDArray[np.bool_]:
    """Which pixels hold more than the bits that count, and more than their sign."""
    return np.asarray((stored.values != stored.whole) & (stored.whole >> stored.n_bits != 0))


def lies_between(ends: tuple[float, float], values: npt.NDArray[Any]) -> bool:
    return bool(values.min() < ends[0] and ends[1] < values.max())


def is_between(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.bool_]:
    """Both ends included; where they are NaN, the pixels that are."""
    return np.isnan(values) if np.isnan(low) else (low <= values) & (values <= high)


def padding_ranges(stored: StoredPixels, header: pydicom.Dataset, warnings: list[str]) -> list[tuple[float, float]]:
    """What the padding tags may mean, the likeliest first: writers confuse signed and unsigned."""
    float_names = next((FLOAT_PADDING[name] for name in FLOAT_PADDING if name in header), None)
    try:
        value, limit = (single_number(header.get(name)) for name in float_names or PADDING)
    except PYDICOM_ERRORS:
        warnings.append(
            "the file's PixelPaddingValue is not one number, so it was left out of account; if the preview is too "
            "dark or too flat, send a PNG"
        )
        return []
    if value is None:
        return []
    ends = (value, value if limit is None else limit)
    if float_names:
        return [(min(ends), max(ends))]
    is_signed = stored.values.dtype.kind == "i"
    readings = [(16, is_signed), (16, not is_signed), *([(stored.n_bits, True)] if is_signed else [])]
    fitting: list[Sequence[float]] = [
        [wrap(int(end), *reading) for end in ends] for reading in readings if fits(ends, reading[0])
    ]
    return [(min(read), max(read)) for read in fitting or [ends]]


def single_number(value: Any) -> float | None:
    """The number in a tag; written in 32 bits where 16 belong, it comes as two, and without a type as bytes."""
    if isinstance(value, bytes) and len(value) == 2:
        return int.from_bytes(value, "little")
    if isinstance(value, Sequence) and len(value) == 2 and value[1] in (0, -1, 2**16 - 1):
        value = value[0]
    return None if value is None or value == "" else float(value)


def fits(ends: tuple[float, float], n_bits: int) -> bool:
    """Whether both numbers can be `n_bits` bits, signed or unsigned."""
    return all(-(2 ** (n_bits - 1)) <= end < 2**n_bits for end in ends)


def wrap(value: int, n_bits: int, is_signed: bool) -> int:
    """What the lowest bits of `value` mean."""
    value %= 2**n_bits
    return value - 2**n_bits if is_signed and value >= 2 ** (n_bits - 1) else value
