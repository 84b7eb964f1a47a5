"""Voxel values as stored -> grey values of 0..255, as the networks were trained on."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from medimageparse_contract.options import CT_WINDOWS
from numpy.typing import NDArray

from medimageparse_serving.refused import Refused
from medimageparse_serving.volume.geometry import Intensity
from medimageparse_serving.volume.grey_values import choose_intensity, find_padding, has_few_levels
from medimageparse_serving.volume.levels import Levels

PERCENTILES = (0.5, 99.5)
SAMPLE_VOXELS = 2**20  # enough for shares of a thousandth, small beside the volume
LARGEST = 1e30  # differences and products of such values are still FP32
LARGEST_UNSCALED = 2**24  # the networks' FP32 overflows far above
NEARLY_BLACK = 32  # of 255; the brightest voxels stay below
IN_WINDOW = 0.005  # share of the voxels that a CT window shows as grey, at least


@dataclass(frozen=True, eq=False)
class Values:
    """Stored voxels [D,H,W] and the header's slope and intercept; iterating gives FP32 [H,W], slice by slice."""

    stored: NDArray[Any]
    slope: float
    intercept: float

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for values in self.stored:
            yield (values * self.slope + self.intercept if self.are_scaled else values).astype(np.float32)

    @property
    def are_scaled(self) -> bool:
        return (self.slope, self.intercept) != (1, 0)

    @property
    def are_8_bit(self) -> bool:
        return self.stored.dtype == np.uint8 and not self.are_scaled

    def are_whole(self) -> bool:
        return self.are_8_bit or all(np.array_equal(values, np.rint(values)) for values in self)

    def ends(self) -> tuple[float, float]:
        """The lowest and the highest value; ValueError if a voxel is no number that FP32 holds well."""
        ends = float(self.stored.min()), float(self.stored.max())
        numbers = (*ends, ends[0] * self.slope, ends[1] * self.slope, self.slope, self.intercept)
        if not all(abs(number) < LARGEST for number in numbers):
            raise Refused("image has NaN or infinite voxels; replace them (over 1e30 counts as infinite), say by air")
        low, high = sorted(end * self.slope + self.intercept for end in ends)
        return low, high

    def levels(self) -> Levels:
        if self.stored.dtype.kind in "iu" and self.stored.dtype.itemsize <= 2 and not self.are_scaled:
            return Levels.of_whole(self.stored, int(self.stored.min()), int(self.stored.max()))
        return Levels.of(np.concatenate([shown.ravel() for shown in self]))

    def sample(self) -> NDArray[np.float32]:
        """About SAMPLE_VOXELS of them, evenly spread."""
        step = max(1, math.ceil((self.stored.size / SAMPLE_VOXELS) ** (1 / 3)))
        spread = Values(self.stored[::step, ::step, ::step], self.slope, self.intercept)
        return np.concatenate([values.ravel() for values in spread])


def scale_intensity(
    stored: NDArray[Any], slope: float, intercept: float, intensity: str
) -> tuple[NDArray[Any], Intensity, list[str]]:
    """Brings the values to 0..255, slice by slice; whole numbers as UINT8, which is resized as in training.

    Gives the volume [D,H,W], UINT8 or FP32, what was done, and warnings.
    """
    values = Values(stored, slope, intercept)
    low, high = values.ends()
    sample = values.sample()
    padding, used = find_padding(sample), intensity
    warnings: list[str] = []
    if intensity == "auto":
        used, warnings = choose_intensity(sample, padding, values.are_8_bit)
    if used == "none":
        if max(-low, high) > LARGEST_UNSCALED:
            raise Refused("image has values far over 255, and intensity=none takes them as they are; leave it out")
        is_uint8 = values.are_whole() if intensity == "auto" else values.are_8_bit
        bounds = None
    else:
        is_uint8, bounds = True, find_bounds(values, sample, used, padding) or [low, high]
    if used != "percentile":  # a CT window shows padding black, and metal white
        padding = []
    volume = np.empty(stored.shape, np.uint8 if is_uint8 else np.float32)
    if stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2:
        look_up(values, bounds, padding, volume)
    else:
        show(values, bounds, padding, volume)
    warnings += find_faults(sample, bounds, padding, Values(volume, 1, 0).sample())
    return volume, Intensity(intensity, used, bounds, padding, volume.dtype.name), warnings


def show(values: Values, bounds: list[float] | None, padding: list[float], volume: NDArray[Any]) -> None:
    """Fills the volume with what the networks see of the values."""
    for destination, shown in zip(volume, values, strict=True):
        is_padding = np.isin(shown, padding) if padding else None
        destination[...] = shown if bounds is None else to_grey(shown, *bounds)
        if is_padding is not None:
            destination[is_padding] = 0


def look_up(values: Values, bounds: list[float] | None, padding: list[float], volume: NDArray[Any]) -> None:
    """As `show`, of integers of 8 or 16 bits: what each integer becomes is found once, and looked up in each voxel."""
    stored = values.stored
    place = f"u{stored.dtype.itemsize}"  # in the table
    all_stored = np.arange(2 ** (8 * stored.dtype.itemsize), dtype=place).view(stored.dtype.newbyteorder("="))[None]
    shown = np.empty(all_stored.shape, volume.dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # of integers that no voxel has
        show(Values(all_stored, values.slope, values.intercept), bounds, padding, shown)
    for destination, voxels in zip(volume, stored.view(f"{stored.dtype.byteorder}{place}"), strict=True):
        np.take(shown[0], voxels, out=destination, mode="clip")  # all are in the table; "raise" would copy them


def find_bounds(values: Values, sample: NDArray[np.float32], used: str, padding: list[float]) -> list[float] | None:
    """The values that become 0 and 255; None if percentiles make no sense of them: a mask, all one value."""
    if used in CT_WINDOWS:
        width, level = CT_WINDOWS[used]
        return [level - width / 2, level + width / 2]
    if has_few_levels(sample):
        return None
    content = values.levels().without([0.0, *padding])
    low, high = content.percentiles(PERCENTILES) if content.size else (0.0, 0.0)
    return [low, high] if low < high else None


def to_grey(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """low..high -> 0..255, fractions cut off; all 0 if nothing differs. The values are used up."""
    if high - low < np.finfo(np.float32).tiny:
        return np.zeros(values.shape, np.uint8)
    grey = np.clip(values, low, high, out=values)
    grey -= low
    grey /= high - low
    grey *= 255
    return np.minimum(grey, 255, out=grey).astype(np.uint8)  # over it where FP32 tells low from high no better


def find_faults(
    values: NDArray[np.float32], bounds: list[float] | None, padding: list[float], grey: NDArray[np.float32]
) -> list[str]:
    """What is wrong with what the networks see: a sample of the values, and the grey values they became."""
    if values.min() == values.max():
        return ["all voxels have the same value, so there is nothing to see; send another volume"]
    faults = []
    if bounds is None and (values.min() < 0 or values.max() > 255):
        faults.append("values outside 0..255 are kept, which the networks were not trained on; leave intensity out")
    if float(values.max()) in padding:
        faults.append("the highest value lies far from all others; it is taken for padding and shown black")
    if np.count_nonzero((grey > 0) & (grey < 255)) < IN_WINDOW * grey.size:
        faults.append(
            "the networks see next to no grey, only black and white; send an image of grey values, or, if this is one, "
            "name another intensity"
        )
    elif np.percentile(grey[grey > 0], 99.5) < NEARLY_BLACK:
        faults.append("what the networks see is nearly black; send intensity=percentile, or brighter grey values")
    return faults
