"""What makes a picture's grey values doubtful: it is answered all the same, and the report says why to look twice.

| warning | when |
|---|---|
| one colour | all pixels have it |
| few colours | at most FEW_COLOURS: a mask, a label map, a drawing |
| hardly any contrast | nearly all values lie within less than NARROW, in each channel: nearly black, 16 bits cut to 8 |
| padding | 16-bit grey: a lowest or highest value far from all others that percentiles would not leave out |
| signed as unsigned | 16-bit grey: values near 0, values near 65535, and nothing between |
| Hounsfield units | 16-bit grey: the values spread as CT does, from air to soft tissue, about a usual offset |
| a JPEG without an end | its last block is what libjpeg makes of no data |
| a colour that the palette lacks | at least one pixel has it |
| CMYK without a mark | only Adobe's mark in a JPEG says that its four inks are inverted, as nearly all are |
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medimageparse_serving.volume.grey_values import find_offset

GREY_16 = ("I;16", "I;16B")  # Pillow's modes of 16-bit grey
FEW_COLOURS = 8
NARROW = 32  # of 256 grey values
TAILS = 0.005  # of the pixels at either end: what the percentiles leave out

OFFSETS = (1024, 32768)  # what files add to Hounsfield units to stay above 0
SAMPLE_PIXELS = 2**20  # enough for shares of a thousandth

STRIP = 2**20  # pixels that are counted at once

Counts = NDArray[np.int64]


def find_doubts(picture: Image.Image, rgb: Image.Image, padding: list[int]) -> list[str]:
    """Sentences on a decoded picture and the RGB that the networks see of it; usually none."""
    doubts = list(doubts_of_colours(picture))
    if picture.mode in GREY_16:
        doubts.extend(doubts_of_16_bits(np.asarray(picture, np.uint16), padding))
    return doubts or list(doubts_of_contrast(rgb))


def doubts_of_colours(picture: Image.Image) -> Iterator[str]:
    if picture.format == "JPEG" and picture.mode == "CMYK" and "adobe" not in picture.info:
        yield (
            "the JPEG is CMYK and does not say whether its colours are inverted; they are read as Adobe writes them. "
            "If the preview shows a negative, send the picture as RGB"
        )
    if picture.format == "JPEG" and is_without_data(picture):
        yield (
            "the JPEG ends in an even grey of 128, as one does that was cut short and closed again; if something is "
            "missing below, send the whole file"
        )
    if picture.mode == "P" and picture.palette and np.asarray(picture).max() >= len(picture.palette.palette) / 3:
        yield "some pixels have colours that the palette lacks, and are black; send the picture as RGB"


def is_without_data(jpeg: Image.Image) -> bool:
    """Whether the last block of a JPEG is what libjpeg makes of no data, but for its edge: colours reach over it."""
    width, height = jpeg.size
    block = jpeg.crop((max(0, width - 6), max(0, height - 6), width, height))
    return block.mode in ("L", "RGB") and block.convert("RGB").getextrema() == ((128, 128),) * 3


def doubts_of_contrast(rgb: Image.Image) -> Iterator[str]:
    """At most one: the first that applies."""
    colours = rgb.getcolors(FEW_COLOURS)
    low, high = widest_range(rgb.histogram())
    if colours is not None and len(colours) == 1:
        yield "the whole picture is of one colour, where transparent counts as black; send one that shows something"
    elif colours is not None:
        yield (
            f"the picture has only {len(colours)} colours, as a mask, a label map or a drawing has; "
            "send the image that it was made of"
        )
    elif high - low < NARROW:
        yield (
            f"nearly all of the picture lies between {low} and {high} of 0..255, so the networks see hardly any "
            "contrast; scale its values to 0..255, or send them as 16-bit grey without transparency"
        )


def widest_range(histogram: list[int]) -> tuple[int, int]:
    """Where nearly all values of a channel lie; of the channel that uses the most."""
    ranges = [central_range(counts) for counts in np.array(histogram, np.int64).reshape(3, 256)]
    return max(ranges, key=lambda ends: ends[1] - ends[0])


def central_range(counts: Counts) -> tuple[int, int]:
    """The values between which all but the TAILS lie."""
    shares = counts.cumsum() / max(1, counts.sum())
    return int(np.searchsorted(shares, TAILS, "right")), int(np.searchsorted(shares, 1 - TAILS))


def count_values(stored: NDArray[np.uint16]) -> Counts:
    """How often each of the 65536 values occurs; strip by strip, because numpy counts in wider numbers."""
    counts = np.zeros(2**16, np.int64)
    for start in range(0, stored.size, STRIP):
        counts += np.bincount(stored.reshape(-1)[start : start + STRIP], minlength=2**16)
    return counts


def doubts_of_16_bits(stored: NDArray[np.uint16], padding: list[int]) -> Iterator[str]:
    """At most one: the first that applies."""
    counts = count_values(stored)
    if np.count_nonzero(counts) <= FEW_COLOURS:
        return
    if padding:
        yield (
            f"{counts[padding].sum() / counts.sum():.1%} of the pixels have the value {padding[0]}, far from all "
            "others; it is taken for padding or a marker, and black. If it shows something, set it nearer to the others"
        )
    elif are_signed(counts):
        yield (
            "the values lie near 0 and near 65535 and nowhere between, as negative numbers do that were stored without "
            "their sign; add 32768 to the signed values, or send the DICOM file with the client"
        )
    elif (offset := find_offset(sample(stored), OFFSETS)) is not None:
        yield (
            f"the values look like CT in Hounsfield units + {offset}, and no window is applied to them; scale the "
            "window that you want to 0..255, or send the DICOM file with the client and name a window"
        )


def find_padding(counts: Counts) -> list[int]:
    """The lowest or highest value over 0, if it alone would take half of the grey values or more."""
    positive = counts.copy()
    positive[0] = 0
    if np.count_nonzero(positive) <= FEW_COLOURS:
        return []
    for edge in (-1, 0):
        value = int(np.flatnonzero(positive)[edge])
        others = positive.copy()
        others[value] = 0
        low, high = central_range(others)
        distance = max(low - value, value - high)
        if positive[value] >= TAILS * positive.sum() and distance >= max(FEW_COLOURS, high - low):
            return [value]
    return []


def are_signed(counts: Counts) -> bool:
    """Whether there are values at both ends of 16 bits, and none between."""
    low, high = counts[: 2**14].sum(), counts[-(2**14) :].sum()
    return bool(min(low, high) >= 0.01 * counts.sum() and low + high > 0.999 * counts.sum())


def sample(stored: NDArray[np.uint16]) -> NDArray[np.float32]:
    """About SAMPLE_PIXELS of a picture's values, evenly spread."""
    step = max(1, math.isqrt(stored.size // SAMPLE_PIXELS))
    return stored[::step, ::step].astype(np.float32).ravel()
