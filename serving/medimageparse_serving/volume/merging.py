"""Probabilities of several prompts on one slice -> one label a pixel, as the mask decoder's graph does (spec 6.3, 6.4).

The graph merges the masks of one draw. Here are merged, for callers who ask: edges, and means of several draws.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Merged: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def merge(probabilities: NDArray[np.float32], scores: NDArray[np.float32], gate: NDArray[np.bool_]) -> Merged:
    """Probabilities [P,h,w], scores [P] and which prompts are there [P] -> labels [h,w] and lost_to [P], both uint8.

    The best score goes first, of equals the earlier prompt; a mask goes whose IoU with one that stays is over 0.5.
    Background wins at 0.5, and the earlier prompt wins ties.
    """
    masks = probabilities > 0.5
    labels, highest = np.zeros(masks.shape[1:], np.uint8), np.full(masks.shape[1:], 0.5, np.float32)
    lost_to = np.zeros(len(masks), np.uint8)
    stays: list[int] = []
    areas = masks.sum((1, 2))
    for prompt in np.argsort(-scores, kind="stable"):
        if not (gate[prompt] and areas[prompt]):
            continue
        winner = next((kept for kept in stays if overlap(masks, areas, kept, prompt)), None)
        if winner is None:
            stays.append(prompt)
        else:
            lost_to[prompt] = winner + 1
    for prompt in sorted(stays):
        is_higher = probabilities[prompt] > highest
        labels[is_higher] = prompt + 1
        highest[is_higher] = probabilities[prompt][is_higher]
    return labels, lost_to


def overlap(masks: NDArray[np.bool_], areas: NDArray[np.int64], one: int, other: int) -> bool:
    """Whether their IoU is over 0.5, in whole numbers."""
    return bool(3 * np.count_nonzero(masks[one] & masks[other]) > areas[one] + areas[other])
