"""The image's square -> the pixels that the networks see."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def to_pixels(square: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """RGB [side,side,3] -> [1,size,size,3], by the published resize; a square of that size stays as it is."""
    if len(square) != size:
        square = np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BICUBIC))
    return square[None]
