"""Metrics of 2D masks (`evaluation.md`, section 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
PRECISIONS = (0.5, 0.6, 0.7, 0.8, 0.9)
EPSILON = 1e-6  # upstream's, in float32: it vanishes from 32 pixels up


@dataclass(frozen=True)
class MaskCounts:
    """Pixels of a true mask, of the answer, and of both."""

    truth: int
    predicted: int
    common: int

    @classmethod
    def of(cls, truth: Mask, predicted: Mask) -> "MaskCounts":
        return cls(int(truth.sum()), int(predicted.sum()), int((truth & predicted).sum()))

    @property
    def union(self) -> int:
        return self.truth + self.predicted - self.common

    @property
    def dice(self) -> float:
        """As the published rows have it: in float64 without an epsilon; 0 if both are empty."""
        total = self.truth + self.predicted
        return 2 * self.common / total if total else 0.0

    @property
    def iou(self) -> float:
        """As upstream's evaluator computes it, in float32."""
        return float(np.float32(self.common) / (np.float32(self.union) + np.float32(EPSILON)))


def totals(masks: Sequence[MaskCounts]) -> dict[str, float]:
    """Upstream's totals of a split, in percent: means, the cumulative ones, and shares of masks over an IoU."""
    ious = np.array([mask.iou for mask in masks])
    common = sum(mask.common for mask in masks)
    return {
        "cIoU": percent(common, sum(mask.union for mask in masks)),
        "mIoU": 100 * float(ious.mean()),
        "cDice": percent(common, sum(mask.truth + mask.predicted for mask in masks) / 2),
        "mDice": 100 * float(np.mean([mask.dice for mask in masks])),
        **{f"precision@{limit}": 100 * float((ious >= limit).mean()) for limit in PRECISIONS},
    }


def percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0
