"""Probabilities as bytes, of both models."""

import numpy as np
from numpy.typing import NDArray


def to_eight_bits(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0..1 as 0..255, above 127.5 where it is above 0.5 and nowhere else."""
    values = 255 * probabilities
    values -= np.float32(0.5)
    rounded: NDArray[np.float32] = np.ceil(values, out=values)
    return rounded.astype(np.uint8)
