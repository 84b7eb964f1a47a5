"""Intervals and rates of the evaluation (specification `evaluation.md`, sections 4.6 and 6)."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Interval: TypeAlias = tuple[float, float]

RESAMPLES = 2000
PERCENTILES = (2.5, 97.5)
Z_95 = 1.959963984540054
FEWEST = 5  # units below which an interval says nothing


def mean(values: Sequence[float]) -> float:
    """Mean of what is not NaN; NaN if nothing is."""
    known = _known(values)
    return float(known.mean()) if known.size else float("nan")


def bootstrap(
    values: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """Percentile bootstrap of the mean, 95 %. NaN is left out; None below five units.

    With `clusters`, one a value, whole clusters (patients) are drawn: sum of their sums by sum of their counts.
    """
    array = np.asarray(values, float)
    kept = ~np.isnan(array)
    if clusters is None:
        sums, counts = array[kept], np.ones(int(kept.sum()))
    else:
        names: dict[Hashable, int] = {}
        rows = [names.setdefault(name, len(names)) for name, keep in zip(clusters, kept, strict=True) if keep]
        sums, counts = np.bincount(rows, array[kept]), np.bincount(rows).astype(float)
    return bootstrap_of(
        len(sums), lambda drawn: sums[drawn].sum(-1) / counts[drawn].sum(-1), seed=seed, resamples=resamples
    )


def bootstrap_of(
    n: int,
    statistic: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """95 % of a statistic of `n` units: `statistic` takes indices [R,n] and gives R values; NaN among them is left out.

    None below five units, or if no draw has a value.
    """
    if n < FEWEST:
        return None
    drawn = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
    values = _known(statistic(drawn))
    if not values.size:
        return None
    low, high = np.percentile(values, PERCENTILES)
    return float(low), float(high)


def macro_bootstrap(values: npt.NDArray[np.float64], *, seed: int = 0, resamples: int = RESAMPLES) -> Interval | None:
    """95 % of the mean over columns (organs) of each column's mean over rows (cases); NaN: a case without the organ.

    Cases are drawn once for all organs; an organ that no drawn case has is left out of that draw.
    """
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)

    def statistic(drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        times = np.stack([np.bincount(row, minlength=len(values)) for row in drawn])
        counts = times @ known
        means = np.divide(times @ filled, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
        n_organs = (counts > 0).sum(1)
        return np.where(n_organs > 0, np.nansum(means, axis=1) / np.maximum(n_organs, 1), np.nan)

    return bootstrap_of(len(values), statistic, seed=seed, resamples=resamples)


def wilson(k: int, n: int) -> Interval | None:
    """95 % of a rate k of n by Wilson's score; None below five units."""
    if n < FEWEST:
        return None
    rate, spread = k / n, Z_95**2 / n
    centre = rate + spread / 2
    half = Z_95 * np.sqrt(rate * (1 - rate) / n + spread / (4 * n))
    return float((centre - half) / (1 + spread)), float((centre + half) / (1 + spread))


def auroc(present: Sequence[float], absent: Sequence[float]) -> float:
    """Chance that something present scores higher than something absent; ties count half. NaN if a side is empty."""
    if not len(present) or not len(absent):
        return float("nan")
    ranks = rankdata([*present, *absent])[: len(present)]
    pairs = len(present) * len(absent)
    return float((ranks.sum() - len(present) * (len(present) + 1) / 2) / pairs)


def _known(values: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    array = np.asarray(values, float)
    return np.asarray(array[~np.isnan(array)])
