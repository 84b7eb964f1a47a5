"""A slice of grey values -> the picture that BiomedParse's own reader makes of it; probabilities -> back to the slice.

Needs scipy.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from medimageparse_client.errors import InvalidImage

SIDE = 1024  # pixels of the network's square input


@dataclass(frozen=True, eq=False)
class GreySlice:
    """grey: a slice scaled to 0..255, float64 [H,W], whose pixels are as high as wide."""

    grey: npt.NDArray[np.float64] = field(repr=False)

    @property
    def own_shape(self) -> tuple[int, int]:
        """Rows and columns of the slice as it is stored."""
        height, width = self.grey.shape
        return height, width

    def square(self) -> npt.NDArray[np.uint8]:
        """The picture [1024,1024] that the network sees."""
        return resize_square(np.pad(self.grey, [(margin, margin) for margin in margins(self.grey.shape)]))

    def own_grid(self, square: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A map [side,side] over `square()` at the slice's own pixels, bilinear; above 127.5 stays above 127.5."""
        (height, width), (top, left) = self.grey.shape, margins(self.grey.shape)
        row, column = square.shape[0] / (height + 2 * top), square.shape[1] / (width + 2 * left)
        box = (left * column, top * row, (left + width) * column, (top + height) * row)
        picture = Image.fromarray(square.astype(np.float32))
        sampled = picture.transform(self.own_shape[::-1], Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
        return np.asarray(np.ceil(np.asarray(sampled) - 0.5).astype(np.uint8))


def find_percentiles(pixels: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The 0.5 and 99.5 percentiles of the pixels above 0."""
    inside = pixels[pixels > 0]
    if not inside.size:
        raise InvalidImage("the slice has no pixel above 0; send one that shows something")
    low, high = np.percentile(inside, (0.5, 99.5))
    if low == high:
        raise InvalidImage("what is above 0 in the slice is all one grey, or nearly; send one that shows something")
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
