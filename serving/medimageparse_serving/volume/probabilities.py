"""Mask logits of slices -> a map of each prompt alone, before prompts compete (spec section 6, steps 1, 2, 5)."""

from collections.abc import Collection
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from medimageparse_serving.eight_bits import to_eight_bits
from medimageparse_serving.volume.geometry import Geometry
from medimageparse_serving.volume.sliding_window import places_in_square
from medimageparse_serving.volume.stored_maps import StoredMaps


@lru_cache(maxsize=4)
def enlarging_matrix(n_in: int, n_out: int) -> NDArray[np.float32]:
    """Weights [out,in] of the published resize of mask logits: bicubic with antialias, for enlarging (a = -0.5).

    Taps outside the image are dropped, and rows sum to 1.
    """
    centre = (np.arange(n_out)[:, None] + 0.5) * (n_in / n_out)
    tap = np.arange(n_in)[None]
    first = np.maximum(np.trunc(centre - 1.5), 0)
    last = np.minimum(np.trunc(centre + 2.5), n_in)
    x = np.abs(tap + 0.5 - centre)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0)) * ((tap >= first) & (tap < last))
    matrix: NDArray[np.float32] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return matrix


def exists(scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which prompts are on which slices, by their scores [S,P]: over 0.5, or 0.5 where several are asked."""
    there: NDArray[np.bool_] = (scores > 0.5) | ((scores == 0.5) & (scores.shape[1] > 1))
    return there


def square_probabilities(logits: NDArray[np.float32], gate: NDArray[np.bool_], image_size: int) -> NDArray[np.float32]:
    """Logits [P,s,s] -> probabilities [P,size,size], 0 for the prompts that the gate [P] leaves out."""
    matrix = enlarging_matrix(logits.shape[-1], image_size)
    probabilities = np.zeros((len(logits), image_size, image_size), np.float32)
    for prompt in np.flatnonzero(gate):
        probabilities[prompt] = expit(matrix @ logits[prompt] @ matrix.T)
    return probabilities


class PromptMaps:
    """Masks (0 and 1) or probabilities (0..255) of a volume, filled window by window.

    image_size: the side of the square slices that the networks see
    """

    outputs = ("mask_logits",)

    def __init__(self, kind: str, n_prompts: int, geometry: Geometry, image_size: int, output: str = "all") -> None:
        self.kind, self.image_size = kind, image_size
        self.maps = StoredMaps.empty(n_prompts, geometry, output=output)

    def read(self, slices: range, found: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Adds a window: mask_logits [S,P,s,s] and scores [S,P]."""
        logits, scores = found["mask_logits"], found["scores"]
        matrix = enlarging_matrix(logits.shape[-1], self.image_size)
        rows, columns = places_in_square(self.image_size, *self.maps.slices.shape[2:])
        for s, prompt in np.argwhere(exists(scores)):
            probabilities = expit(matrix[rows] @ logits[s, prompt] @ matrix[columns].T)
            values = probabilities > 0.5 if self.kind == "masks" else to_eight_bits(probabilities)
            self.maps.slices[prompt, slices[s]] = values
        return found

    def answer(self, output: str, wanted: Collection[str]) -> dict[str, NDArray[Any]]:
        return self.maps.answer(self.kind, output, wanted)
