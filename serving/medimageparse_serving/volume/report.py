"""Labels of slices -> what the report says of each prompt, and of the volume."""

import platform
from dataclasses import dataclass
from itertools import product
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from medimageparse_serving.volume.geometry import Geometry, ImageReport
from medimageparse_serving.volume.label_counts import count_labels

# whether the file says the sides, and whether they are at least agreed on -> what box_mm means
BOX_NOTES = {
    (True, True): "smallest and largest x, y, z of the NIfTI affine (RAS+), outer faces of the voxels",
    (False, True): (
        "smallest and largest x, y, z of image.affine, outer faces of the voxels; the file does not say the sides, "
        "and the affine is the one that nibabel assumes then"
    ),
    (False, False): (
        "smallest and largest position along the stored axes, from the centre of the first voxel, outer faces of the "
        "voxels; the file does not say the sides"
    ),
}


FOUND_SCORE = 0.5  # above it, a prompt is looked for on a slice


@dataclass(frozen=True)
class Segmented:
    """What only the window loop knows of each prompt, and what computed it.

    slices_scored: on how many slices its score is above 0.5
    lost_to: [label, slices] of each prompt that suppressed it, and on how many slices
    """

    networks: dict[str, Any]
    window_size: int
    highest_scores: list[float]
    slices_scored: list[int]
    lost_to: list[list[list[int]]]

    @classmethod
    def of(
        cls, scores: NDArray[np.float32], lost_to: NDArray[np.uint8], networks: dict[str, Any], window_size: int
    ) -> "Segmented":
        """From scores and lost_to [P,D], whose numbers are the labels of the winners, 0 where there is none."""
        counts = [np.bincount(row, minlength=1) for row in lost_to]
        return cls(
            networks,
            window_size,
            highest_scores=scores.max(1).tolist(),
            slices_scored=(scores > FOUND_SCORE).sum(1).tolist(),
            lost_to=[[[int(k), int(n[k])] for k in np.flatnonzero(n) if k] for n in counts],
        )


@dataclass(frozen=True)
class PromptReport:
    """Boxes are the first and the last of each axis, None without a voxel.

    slices_scored, slices_shown: slices with a score above 0.5; slices with a voxel of it
    lost_to: {"label", "slices"} of each prompt that has the voxels instead, since both masks overlap by more than half
    why_absent: "low_score" on every slice, "overlap" with other prompts, "empty_mask" where it scored; None if present
    """

    text: str
    label: int
    present: bool  # at least one voxel carries the label
    highest_score: float
    slices_scored: int
    slices_shown: int
    lost_to: list[dict[str, int]]
    why_absent: str | None
    voxels: int
    volume_ml: float
    box_voxels: list[list[int]] | None
    box_mm: list[list[float]] | None
    truncated: bool


@dataclass(frozen=True)
class Report:
    """The `report` output but for its milliseconds. The prompts' texts stand here only: who sent them gets them."""

    prompts: list[PromptReport]
    image: ImageReport
    warnings: list[str]
    networks: dict[str, Any]
    window_size: int
    versions: dict[str, str]
    notes: dict[str, str]


def build_report(prompts: list[PromptReport], geometry: Geometry, segmented: Segmented) -> Report:
    image = geometry.image
    return Report(
        prompts=prompts,
        image=image,
        warnings=[*geometry.warnings, *overlaps(prompts)],
        networks=segmented.networks,
        window_size=segmented.window_size,
        versions={"python": platform.python_version(), "numpy": np.__version__, "nibabel": nibabel.__version__},
        notes={
            "box_voxels": "first and last voxel along the stored axes, inclusive, from 0",
            "box_mm": BOX_NOTES[image.sides_known, image.stored_orientation is not None],
        },
    )


def overlaps(prompts: list[PromptReport]) -> list[str]:
    """A sentence for each prompt that another one suppressed. It names numbers: texts stand in `prompts`."""
    return [
        f"prompt {prompt.label} overlaps prompt {lost['label']} on {lost['slices']} slices, which are given to the "
        "latter; ask each structure once, without synonyms"
        for prompt in prompts
        for lost in prompt.lost_to
    ]


def why_absent(voxels: int, slices_scored: int, lost_to: list[list[int]]) -> str | None:
    if voxels:
        return None
    if not slices_scored:
        return "low_score"
    return "overlap" if lost_to else "empty_mask"


def describe_prompts(
    label_slices: NDArray[np.uint8],
    segmented: Segmented,
    geometry: Geometry,
    prompts: list[str],
    truncated: NDArray[np.bool_],
) -> list[PromptReport]:
    """What was found for each prompt in the labels [D,H,W]."""
    counts, occurs = count_labels(label_slices)
    affine = np.array(geometry.image.affine)
    described = []
    for label, prompt in enumerate(prompts, start=1):
        voxels = int(counts[label])
        box = stored_box(occurs, label, geometry) if voxels else None
        described.append(
            PromptReport(
                text=prompt,
                label=label,
                present=voxels > 0,
                highest_score=round(segmented.highest_scores[label - 1], 6),
                slices_scored=segmented.slices_scored[label - 1],
                slices_shown=int(np.count_nonzero(occurs[0][label])),
                lost_to=[{"label": k, "slices": n} for k, n in segmented.lost_to[label - 1]],
                why_absent=why_absent(voxels, segmented.slices_scored[label - 1], segmented.lost_to[label - 1]),
                voxels=voxels,
                volume_ml=round(voxels * geometry.voxel_ml, 6),
                box_voxels=box,
                box_mm=box_in_mm(box, affine) if box else None,
                truncated=bool(truncated[label - 1]),
            )
        )
    return described


def stored_box(occurs: list[NDArray[np.bool_]], label: int, geometry: Geometry) -> list[list[int]]:
    """First and last voxel of a label along the stored axes, both inclusive."""
    box = [[0, 0, 0], [0, 0, 0]]
    for occurs_along, axis, flipped in zip(occurs, geometry.axes, geometry.flipped, strict=True):
        indices = np.flatnonzero(occurs_along[label][::-1] if flipped else occurs_along[label])
        box[0][axis], box[1][axis] = int(indices[0]), int(indices[-1])
    return box


def box_in_mm(box: list[list[int]], affine: NDArray[np.float64]) -> list[list[float]]:
    """Smallest and largest coordinates of the box's outer faces; a voxel reaches half a voxel around its centre."""
    low, high = np.array(box[0]) - 0.5, np.array(box[1]) + 0.5
    corners = np.array(list(product(*zip(low, high, strict=True)))) @ affine[:3, :3].T
    corners += affine[:3, 3]
    return [[round(float(value), 3) for value in bound] for bound in (corners.min(0), corners.max(0))]
