"""Voxel values as stored -> grey values of 0..255, as the networks were trained on."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

# CT windows in Hounsfield units, as the MedImageParse cards state them: (width, level)
CT_WINDOWS = {"ct-soft-tissue": (400, 40), "ct-lung": (1500, -160), "ct-brain": (80, 40), "ct-bone": (1800, 400)}
INTENSITIES = ("auto", "none", "percentile", *CT_WINDOWS)

# Only CT goes so far below zero: its air is -1000. Water, fat (-100) and normalized MR stay above.
CT_BELOW = -200
PERCENTILES = (0.5, 99.5)
LARGEST = 1e30  # differences and products of such values are still FP32
LARGEST_UNSCALED = 2**24  # the networks' FP32 overflows far above


def scale_intensity(
    stored: NDArray[Any], slope: float, intercept: float, intensity: str
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Brings the values to 0..255, slice by slice; whole numbers as UINT8, which is resized as in training."""
    ends = float(stored.min()), float(stored.max())
    if not all(abs(value) < LARGEST for value in (*ends, ends[0] * slope, ends[1] * slope, slope, intercept)):
        raise ValueError("image has NaN or infinite voxels; replace them (over 1e30 counts as infinite), say by air")
    low, high = sorted(end * slope + intercept for end in ends)
    used = intensity
    if intensity == "auto":
        used = choose_intensity(stored, slope, intercept, low, high)
    if used == "none" and max(-low, high) > LARGEST_UNSCALED:
        raise ValueError("image has values far over 255, and intensity=none takes them as they are; leave it out")
    if used == "none":
        whole = stored.dtype == np.uint8 and (slope, intercept) == (1, 0)
        if intensity == "auto":
            whole = whole or all(np.array_equal(values, np.rint(values)) for values in scaled(stored, slope, intercept))
        dtype, bounds = (np.uint8 if whole else np.float32), None
    else:
        dtype, bounds = np.uint8, find_bounds(stored, slope, intercept, used) or [low, high]
    volume = np.empty(stored.shape, dtype)
    for destination, values in zip(volume, scaled(stored, slope, intercept), strict=True):
        destination[...] = values if bounds is None else to_grey(values, *bounds)
    return volume, {"asked": intensity, "used": used, "bounds": bounds, "resized_as": volume.dtype.name}


def scaled(stored: NDArray[Any], slope: float, intercept: float) -> Iterator[NDArray[np.float32]]:
    """One slice after the other with the header's slope and intercept applied, FP32."""
    for values in stored:
        if (slope, intercept) != (1, 0):
            values = values * slope + intercept
        yield values.astype(np.float32)


def choose_intensity(stored: NDArray[Any], slope: float, intercept: float, low: float, high: float) -> str:
    if low < CT_BELOW:
        return "ct-soft-tissue"
    if low < 0 or high > 255:
        return "percentile"
    # fractions between 0 and 1 lie in 0..255 too, and would all become 0 when the network takes whole numbers
    fractions = stored.dtype.kind == "f" or slope != round(slope) or intercept != round(intercept)
    return "percentile" if fractions and 0 < high <= 1 else "none"


def find_bounds(stored: NDArray[Any], slope: float, intercept: float, used: str) -> list[float] | None:
    """The values that become 0 and 255; None if the percentiles show no contrast, as in a mask."""
    if used in CT_WINDOWS:
        width, level = CT_WINDOWS[used]
        return [level - width / 2, level + width / 2]
    values = np.concatenate([values[values != 0] for values in scaled(stored, slope, intercept)])
    low, high = np.percentile(values, PERCENTILES).tolist() if len(values) else (0.0, 0.0)
    return [low, high] if low < high else None


def to_grey(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """low..high -> 0..255, fractions cut off; all 0 if nothing differs."""
    if high - low < np.finfo(np.float32).tiny:
        return np.zeros(values.shape, np.uint8)
    grey = (np.clip(values, low, high) - low) / (high - low) * 255
    return np.minimum(grey, 255).astype(np.uint8)  # over it where FP32 tells low from high no better than this
