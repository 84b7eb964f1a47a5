"""Metrics of one 3D case, as the official challenge code computes them (`evaluation.md`, sections 4.2 and 4.3)."""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from surface_distance import compute_surface_dice_at_tolerance, compute_surface_distances

Volume: TypeAlias = npt.NDArray[np.integer[Any]]
TOLERANCE_MM = 2.0
MATCH_IOU = 0.5


@dataclass(frozen=True)
class LabelScores:
    """Scores of one label of a case; `nsd` is NaN where surfaces were not asked for."""

    label: int
    truth_voxels: int
    predicted_voxels: int
    common_voxels: int
    nsd: float
    nsd_array_order: float  # with the spacing of each axis: really millimetres

    @property
    def dsc(self) -> float:
        total = self.truth_voxels + self.predicted_voxels
        return 2 * self.common_voxels / total if total else float("nan")


def label_scores(
    truth: Volume, predicted: Volume, spacing: Sequence[float], labels: Iterable[int], *, surface: bool = True
) -> list[LabelScores]:
    """Scores of each label; arrays [D,H,W], spacing (x,y,z) in mm as the challenge's files have it.

    The official code takes that spacing for the axes (D,H,W) as it stands; `nsd_array_order` reverses it.
    """
    labels = list(labels)
    highest = max((*labels, 0)) + 1
    boxes = ndimage.find_objects(np.where(truth > 0, truth, 0), highest)
    other_boxes = ndimage.find_objects(np.where(predicted > 0, predicted, 0), highest)
    scores = []
    for label in labels:
        box = union(boxes[label - 1], other_boxes[label - 1], truth.shape)
        a, b = truth[box] == label, predicted[box] == label
        nsd, in_order = (
            (surface_dice(a, b, spacing), surface_dice(a, b, spacing[::-1]))
            if surface
            else (float("nan"), float("nan"))
        )
        scores.append(LabelScores(label, int(a.sum()), int(b.sum()), int((a & b).sum()), nsd, in_order))
    return scores


Box: TypeAlias = tuple[slice, ...]


def union(first: Box | None, second: Box | None, shape: tuple[int, ...]) -> Box:
    """The smallest box around both and a voxel more, so that surfaces at its rim are closed as in the whole volume."""
    found = [box for box in (first, second) if box is not None]
    if not found:
        return tuple(slice(0, 0) for _ in shape)
    return tuple(
        slice(max(min(s.start for s in sides) - 1, 0), min(max(s.stop for s in sides) + 1, length))
        for sides, length in zip(zip(*found, strict=True), shape, strict=True)
    )


def surface_dice(truth: npt.NDArray[np.bool_], predicted: npt.NDArray[np.bool_], spacing: Sequence[float]) -> float:
    """Normalised surface Dice at 2 mm. An empty prediction is 0 and an empty truth NaN."""
    if not truth.any():
        return float("nan")
    if not predicted.any():
        return 0.0
    distances = compute_surface_distances(truth, predicted, list(spacing))
    return float(compute_surface_dice_at_tolerance(distances, TOLERANCE_MM))


@dataclass(frozen=True)
class SemanticScores:
    """Means over the labels that count: those of the truth that also have a prompt. NaN if there is none."""

    dsc: float
    nsd: float
    nsd_array_order: float
    dsc_all: float  # labels of truth or prediction; absent but predicted is 0


def official_labels(truth: Volume) -> set[int]:
    """The labels that count: as upstream, the first value is taken for the background, whatever it is."""
    return set(np.unique(truth)[1:].tolist())


def semantic_scores(labels: Sequence[LabelScores], counted: Set[int]) -> SemanticScores:
    """The case's values. `labels`: every label with a prompt; `counted` are those that count officially."""
    scored = [label for label in labels if label.label in counted]
    return SemanticScores(
        dsc=_mean([label.dsc for label in scored]),
        nsd=_mean([label.nsd for label in scored]),
        nsd_array_order=_mean([label.nsd_array_order for label in scored]),
        dsc_all=_mean([label.dsc for label in labels if label.truth_voxels or label.predicted_voxels]),
    )


@dataclass(frozen=True)
class InstanceScores:
    """Pairs of true and predicted instances that overlap by half: counts, F1, and mean Dice of the pairs."""

    pairs: int
    extra: int
    missed: int
    dsc_tp: float

    @property
    def f1(self) -> float:
        total = 2 * self.pairs + self.extra + self.missed
        return 2 * self.pairs / total if self.pairs else 0.0


def instance_scores(truth: Volume, predicted: Volume) -> InstanceScores:
    """As the official code: a 0/1 answer is split into components, whose numbers wrap in uint8 from 255 on."""
    truth, predicted = truth.astype(np.uint8), predicted.astype(np.uint8)
    return matched(truth, split(predicted).astype(np.uint8))


def instance_scores_no_wrap(truth: Volume, predicted: Volume) -> InstanceScores:
    """The same in numbers that do not wrap."""
    truth, predicted = truth.astype(np.uint8), predicted.astype(np.uint8)
    return matched(truth, split(predicted))


def instance_scores_copy(truth: Volume, predicted: Volume) -> InstanceScores:
    """As BiomedParse's copy of the code: the truth, too, is the components of its foreground, and nothing wraps."""
    truth, predicted = truth.astype(np.uint8), predicted.astype(np.uint8)
    return matched(components(truth != 0), split(predicted))


def split(predicted: Volume) -> Volume:
    """A prediction of exactly two values gets the numbers of its components, above its largest value."""
    values = np.unique(predicted)
    if len(values) != 2:
        return predicted.astype(np.int64)
    numbers = components(predicted != 0)
    return np.where(numbers > 0, numbers + int(values[-1]), 0)


def components(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """6-connected components, numbered from 1 in C order."""
    numbers, _ = ndimage.label(np.ascontiguousarray(mask))
    return np.asarray(numbers, np.int64)


def matched(truth: Volume, predicted: Volume) -> InstanceScores:
    """Scores of the assignment that has most pairs of IoU 0.5 and more, then the largest sum of IoU."""
    gt, n_gt = renumbered(truth)
    pr, n_pr = renumbered(predicted)
    if not n_gt or not n_pr:
        return InstanceScores(0, n_pr, n_gt, 0.0)
    overlap = np.bincount((gt * (n_pr + 1) + pr).ravel(), minlength=(n_gt + 1) * (n_pr + 1))
    overlap = overlap.reshape(n_gt + 1, n_pr + 1)
    sizes_gt, sizes_pr = overlap.sum(1)[1:, None], overlap.sum(0)[None, 1:]
    common = overlap[1:, 1:]
    iou = common / (sizes_gt + sizes_pr - common)
    rows, columns = linear_sum_assignment(-(iou >= MATCH_IOU).astype(float) - iou / (2 * min(n_gt, n_pr)))
    is_pair = iou[rows, columns] >= MATCH_IOU
    dice = (2 * common / (sizes_gt + sizes_pr))[rows, columns][is_pair]
    n = int(is_pair.sum())
    return InstanceScores(n, n_pr - n, n_gt - n, float(dice.mean()) if n else 0.0)


def renumbered(instances: Volume) -> tuple[npt.NDArray[np.int64], int]:
    """Numbers 1..n without gaps, 0 stays the background; a volume of one value only is one instance."""
    values, numbers = np.unique(instances, return_inverse=True)
    numbers = numbers.reshape(instances.shape).astype(np.int64)
    if values[0] != 0:
        return numbers + 1, len(values)
    return numbers, len(values) - 1


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
