"""A decoded picture -> the colours of 8 bits that the networks see of it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medimageparse_serving.image.geometry import Intensity
from medimageparse_serving.image.image_doubts import GREY_16, count_values, find_padding

PERCENTILES = (0.5, 99.5)


def to_rgb(picture: Image.Image, bits: int) -> tuple[Image.Image, Intensity]:
    """8-bit RGB on black, and what was done to its values."""
    if picture.mode in GREY_16:  # the only kind whose lower bits Pillow keeps
        stored = np.array(picture, np.uint16)
        if "transparency" in picture.info:
            stored[stored == picture.info["transparency"]] = 0
        padding = find_padding(count_values(stored))
        bounds = find_bounds(stored[~np.isin(stored, padding)] if padding else stored)
        grey_of = to_grey(np.arange(2**16), *bounds)
        grey_of[padding] = 0
        return Image.fromarray(grey_of[stored]).convert("RGB"), Intensity("percentile", list(bounds), padding)
    if picture.has_transparency_data:
        see_through = picture.info.get("transparency")
        if isinstance(see_through, int | tuple) and picture.mode in ("L", "RGB"):
            picture.info["transparency"] = to_8_bits(see_through, bits)
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return picture.convert("RGB"), Intensity("high byte" if bits == 16 else "none", None, [])


def to_8_bits(see_through: int | tuple[int, ...], bits: int) -> int | tuple[int, ...]:
    """The transparent colour as the decoded pixels have it: Pillow leaves it as it stands in a file of other bits."""
    if isinstance(see_through, tuple):
        return tuple(value >> max(0, bits - 8) & 255 for value in see_through)
    return see_through * 255 // (2**bits - 1) if see_through < 2**bits else see_through & 255


def find_bounds(stored: NDArray[Any]) -> tuple[float, float]:
    """The values that become 0 and 255: percentiles of what is over 0; all values if that shows no contrast."""
    positive = stored[stored > 0]
    low, high = np.percentile(positive, PERCENTILES).tolist() if positive.size else (0.0, 0.0)
    return (low, high) if low < high else (float(stored.min()), float(stored.max()))


def to_grey(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """low..high -> 0..255, fractions cut off; all 0 if nothing differs."""
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    return ((np.clip(values, low, high) - low) / (high - low) * 255).astype(np.uint8)
