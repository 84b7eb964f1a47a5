"""The different values of a volume and how often each occurs: smaller than the values, and quicker to ask."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 2**17  # whole numbers within such a range are counted, others sorted


@dataclass(frozen=True, eq=False)
class Levels:
    """values: rising, FP32; counts: of each, above 0."""

    values: NDArray[np.float32]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> "Levels":
        """Of some FP32 values."""
        low, high = float(values.min(initial=0)), float(values.max(initial=0))
        if high - low < MOST and np.array_equal(values, np.rint(values)):
            return cls.of_whole([values.astype(np.int32)], int(low), int(high))
        return cls(*np.unique(values, return_counts=True))

    @classmethod
    def of_whole(cls, pieces: Iterable[NDArray[Any]], low: int, high: int) -> "Levels":
        """Of integers within low..high, which come in pieces."""
        counts = np.zeros(high - low + 1, np.int64)
        for piece in pieces:
            counts += np.bincount(np.subtract(piece, low, dtype=np.int64).ravel(), minlength=len(counts))
        found = np.flatnonzero(counts)
        return cls((found + low).astype(np.float32), counts[found])

    @property
    def size(self) -> int:
        return int(self.counts.sum())

    def count(self, value: float) -> int:
        return int(self.counts[self.values == value].sum())

    def without(self, values: Collection[float]) -> "Levels":
        is_left = ~np.isin(self.values, list(values))
        return Levels(self.values[is_left], self.counts[is_left])

    def percentiles(self, shares: Sequence[float]) -> list[float]:
        """As numpy.percentile gives them, to the bit."""
        position = np.true_divide(shares, 100) * (self.size - 1)
        index = np.floor(position).astype(np.int64)
        ends = self.counts.cumsum()
        below, above = (
            self.values[np.searchsorted(ends, np.minimum(index + k, self.size - 1), side="right")] for k in (0, 1)
        )
        share, step = position - index, above - below
        found: list[float] = np.where(share < 0.5, below + step * share, above - step * (1 - share)).tolist()
        return found
