"""Masks and the networks' other outputs -> what the report says of each prompt, and of the picture."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy
from medimageparse_contract.categories import CATEGORIES
from numpy.typing import NDArray
from scipy.special import softmax

from medimageparse_serving.image.geometry import Geometry
from medimageparse_serving.prompts.request import Asked

NOTES = {
    "box_pixels": "first and last row and column of the upright image, inclusive, from 0",
    "p_value": "small where the mask covers other colours than this target does in images of this type",
}


@dataclass(frozen=True)
class Segmented:
    """What only the public model knows: what its networks are."""

    networks: dict[str, Any]


@dataclass(frozen=True)
class MaskReport:
    """box_pixels: first and last row and column, both inclusive; None without a pixel."""

    present: bool
    area_pixels: int
    box_pixels: list[list[int]] | None
    highest_probability: float


@dataclass(frozen=True)
class Category:
    """The likeliest of the 16 categories, its confidence, and that of background."""

    category: str
    category_confidence: float
    background_confidence: float


@dataclass(frozen=True)
class PromptReport:
    """`present`: at least one pixel is in the mask. Other fields are those of MaskReport and Category."""

    text: str
    present: bool
    area_pixels: int
    box_pixels: list[list[int]] | None
    highest_probability: float
    matched_query: int
    similarity: float
    category: str
    category_confidence: float
    background_confidence: float
    p_value: float | None
    truncated: bool


@dataclass(frozen=True)
class Rejected:
    """A target that recognition left out, and why."""

    text: str
    p_value: float | None
    reason: str


@dataclass(frozen=True)
class Report:
    """The `report` output but for its milliseconds. The prompts' texts stand here only: who sent them gets them."""

    prompts: list[PromptReport]
    joint: bool
    image_type: str | None
    p_value_threshold: float | None
    rejected: list[Rejected]
    image: dict[str, Any]  # Geometry but for its warnings, and `output`
    warnings: list[str]
    networks: dict[str, Any]
    versions: dict[str, str]
    notes: dict[str, str]


def build_report(
    prompts: list[PromptReport],
    rejected: list[Rejected],
    p_value_threshold: float | None,
    geometry: Geometry,
    asked: Asked,
    segmented: Segmented,
    output: str,
) -> Report:
    image = asdict(geometry)
    return Report(
        prompts=prompts,
        joint=asked.joint,
        image_type=asked.image_type,
        p_value_threshold=p_value_threshold,
        rejected=rejected,
        warnings=image.pop("warnings"),
        image=image | {"output": output},
        networks=segmented.networks,
        versions={"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
        notes=NOTES,
    )


def describe_mask(mask: NDArray[np.bool_], probabilities: NDArray[np.float32]) -> MaskReport:
    """mask and probabilities [H,W]."""
    area = int(np.count_nonzero(mask))
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = [[int(rows[end]), int(columns[end])] for end in (0, -1)] if area else None
    return MaskReport(area > 0, area, box, round(float(probabilities.max()), 6))


def describe_categories(category_logits: NDArray[np.float32]) -> list[Category]:
    """Of logits [P,17]; the last, background, is never the answer."""
    shares = softmax(category_logits.astype(np.float64), axis=1)
    return [
        Category(CATEGORIES[best], round(float(row[best]), 6), round(float(row[-1]), 6))
        for row, best in zip(shares, shares[:, :-1].argmax(1), strict=True)
    ]


def describe_prompts(
    masks: Mapping[int, MaskReport],
    prompts: list[str],
    p_values: list[float | None],
    tensors: Mapping[str, NDArray[Any]],
) -> list[PromptReport]:
    """What was found for each prompt, in the order of `masks`, whose keys are the prompts' numbers."""
    categories = describe_categories(tensors["category_logits"])
    return [
        PromptReport(
            text=prompts[prompt],
            **vars(mask),
            matched_query=int(tensors["matched_queries"][prompt]),
            similarity=round(float(tensors["similarities"][prompt]), 6),
            **vars(categories[prompt]),
            p_value=p_values[prompt],
            truncated=bool(tensors["truncated"][prompt]),
        )
        for prompt, mask in masks.items()
    ]
