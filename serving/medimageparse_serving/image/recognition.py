"""Whether a target exists, judged by its mask's colours, and which of several targets a pixel belongs to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, expit

from medimageparse_serving.image.geometry import Geometry
from medimageparse_serving.image.probability_maps import THRESHOLD, Found, enlarge, image_probabilities
from medimageparse_serving.refused import Refused

Target = TypeVar("Target")

TARGET_DIST = Path(__file__).with_name("target_dist.json")
Distributions = dict[str, dict[str, list[list[float]]]]  # image type -> target -> [a, b] of four Beta distributions

SUPPORT = 0.1  # a target takes part in the vote on the pixels where it is likelier than this

BELOW_THRESHOLD = "p-value below p_value_threshold"
EMPTY = "no pixel is likelier than 0.5"
SUPPRESSED = "more than half of it lies in one target with a higher p-value"
OUTVOTED = "other targets are likelier in more than half of the pixels where it is likelier than 0.1"


def read_distributions(path: Path = TARGET_DIST) -> Distributions:
    """The distributions of all image types; {} if there is no such file."""
    if not path.exists():
        return {}
    distributions: Distributions = json.loads(path.read_text())
    return distributions


def read_threshold(p_value_threshold: NDArray[np.float32] | None, recognize: bool) -> float | None:
    """The request's `p_value_threshold`."""
    if p_value_threshold is None:
        return None
    if not recognize:
        raise Refused("p_value_threshold is for recognition; leave it out, or send image_type without text")
    threshold = float(str(p_value_threshold[0]))  # 0.05 as it was meant, not the nearest FP32
    if not 0 <= threshold <= 1:
        raise Refused("p_value_threshold is not between 0 and 1; send for example 0.05")
    return threshold


def existence_p_values(
    mask_logits: NDArray[np.float32],
    pixels: NDArray[np.uint8],
    prompts: list[str],
    distributions: Mapping[str, list[list[float]]],
) -> list[float | None]:
    """Per prompt, on the square [S,S,3] that the networks saw; None where the distributions have no such target."""
    known = {as_prompt(target): distribution for target, distribution in distributions.items()}
    side = range(len(pixels))
    p_values: list[float | None] = []
    for logits, prompt in zip(mask_logits, prompts, strict=True):
        distribution = known.get(as_prompt(prompt))
        if distribution is None:
            p_values.append(None)
        else:
            statistics = mask_statistics(expit(enlarge(logits, len(side), side, side)), pixels)
            p_values.append(existence_p_value(statistics, distribution))
    return p_values


def as_prompt(text: str) -> str:
    """Texts that give the same tokens are the same."""
    return " ".join(text.lower().split())


def mask_statistics(probabilities: NDArray[np.float32], pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Means of probability, red, green and blue within the mask, as 0..1; zeros if the mask is empty."""
    values = 255 * probabilities
    inside = values >= 128
    if not inside.any():
        return np.zeros(4)
    return np.array([values[inside].mean(), *pixels[inside].mean(0)]) / 256


def existence_p_value(statistics: NDArray[np.float64], distribution: list[list[float]]) -> float:
    """Geometric mean of the four statistics' p-values."""
    p_values = two_sided_p_values(statistics, *np.array(distribution).T)
    p_values[0] = np.float32(p_values[0])  # upstream's scipy does so, because the mean probability is FP32
    return float(np.prod(p_values) ** 0.25)


def two_sided_p_values(x: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of Kolmogorov-Smirnov tests of one value each against Beta distributions, in closed form."""
    below = betainc(a, b, x)
    # not 2 * min(below, 1 - below), which is the same but keeps tiny values where upstream has 0
    p_values: NDArray[np.float64] = 2 * (1 - np.maximum(below, 1 - below))
    return p_values


def recognize(
    mask_logits: NDArray[np.float32],
    geometry: Geometry,
    p_values: list[float | None],
    p_value_threshold: float | None,
) -> tuple[dict[int, Found], dict[int, str]]:
    """The targets that are there by prompt number, none of them sharing a pixel, and of the others the reason."""
    ranks = {prompt: 1.0 if p is None else p for prompt, p in enumerate(p_values)}  # what is unknown is not doubted
    maps = {
        prompt: image_probabilities(logits, geometry)
        for prompt, logits in enumerate(mask_logits)
        if p_value_threshold is None or ranks[prompt] >= p_value_threshold
    }
    regions = {prompt: probabilities > THRESHOLD for prompt, probabilities in maps.items()}
    order = suppress(regions, ranks)
    masks = combine({prompt: maps[prompt] for prompt in order})
    rejected = {}
    for prompt in ranks:
        if prompt not in maps:
            rejected[prompt] = BELOW_THRESHOLD
        elif prompt not in order:
            rejected[prompt] = SUPPRESSED if regions[prompt].any() else EMPTY
        elif prompt not in masks:
            rejected[prompt] = OUTVOTED
    return {prompt: (maps[prompt], mask) for prompt, mask in masks.items()}, rejected


def suppress(regions: Mapping[Target, NDArray[np.bool_]], p_values: Mapping[Target, float]) -> list[Target]:
    """Targets by falling p-value, without the empty ones and those that lie mostly within one before them."""
    kept: list[Target] = []
    for target in sorted(regions, key=lambda target: -p_values[target]):
        region = regions[target]
        area = np.count_nonzero(region)
        if area and all(np.count_nonzero(region & regions[other]) <= 0.5 * area for other in kept):
            kept.append(target)
    return kept


def combine(maps: Mapping[Target, NDArray[np.float32]]) -> dict[Target, NDArray[np.bool_]]:
    """Masks that share no pixel, in the order given, without the targets that others outvote on most of their support.

    The surest target always stays.
    """
    if not maps:
        return {}
    leader = leaders(list(maps.values()), SUPPORT)
    supports = [probabilities > SUPPORT for probabilities in maps.values()]
    areas = np.array([np.count_nonzero(support) for support in supports])
    won = np.array([np.count_nonzero(leader == place) for place in range(len(maps))])
    confidences = [
        probabilities[support].mean(dtype=np.float64) if area else 0.0
        for probabilities, support, area in zip(maps.values(), supports, areas, strict=True)
    ]
    stays = won >= 0.5 * areas
    stays[np.argmax(confidences)] = True
    remaining = [target for target, remains in zip(maps, stays, strict=True) if remains]
    leader = leaders([maps[target] for target in remaining], THRESHOLD)
    return {target: leader == place for place, target in enumerate(remaining)}


def leaders(maps: list[NDArray[np.float32]], floor: float) -> NDArray[np.int16]:
    """Which map is the highest in each pixel, the first of equals; -1 where none is above the floor."""
    leader = np.full(maps[0].shape, -1, np.int16)
    highest = np.full(maps[0].shape, floor, np.float32)
    for place, probabilities in enumerate(maps):
        np.putmask(leader, probabilities > highest, place)
        np.maximum(highest, probabilities, out=highest)
    return leader
