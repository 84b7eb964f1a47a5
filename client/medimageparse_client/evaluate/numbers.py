"""The numbers of a table: each with its n, its interval, and the card's number beside it."""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medimageparse_client.evaluate import cards
from medimageparse_client.evaluate.records import NAN, Record, Row
from medimageparse_client.evaluate.statistics import Interval, auroc, bootstrap, macro_bootstrap, mean, wilson


@dataclass(frozen=True)
class Number:
    """One number of a table.

    n: cases, masks or prompts that it is made of
    interval: 95 %, or None below five
    card: what the model card or the published results print, if they do
    scale: what 1 is in this table; 100 for percent
    """

    value: float
    n: int
    interval: Interval | None = None
    card: float | None = None
    scale: float = 1.0

    @property
    def difference(self) -> float | None:
        return None if self.card is None or math.isnan(self.value) else self.value - self.card

    @property
    def verdict(self) -> str:
        return "" if self.difference is None else cards.verdict(self.difference / self.scale)


Line: TypeAlias = dict[str, Number]
Table: TypeAlias = dict[str, Line]  # name of the row -> column -> number


@dataclass(frozen=True)
class Resampling:
    """How intervals are drawn; `cluster_of` gives the patient of a case's name, or None: each case is its own."""

    seed: int = 0
    resamples: int = 2000
    cluster_of: Callable[[str], Hashable] | None = None

    def mean(
        self, values: Sequence[float], names: Sequence[str], card: float | None = None, scale: float = 1
    ) -> Number:
        """The mean of what is not NaN; `names` are the cases of the values."""
        clusters = None if self.cluster_of is None else [self.cluster_of(name) for name in names]
        interval = bootstrap(values, clusters, seed=self.seed, resamples=self.resamples)
        n = sum(not math.isnan(value) for value in values)
        return Number(mean(values), n, interval, card, scale)

    def macro(self, values: npt.NDArray[np.float64]) -> Interval | None:
        """The interval of a mean over organs [cases, organs]."""
        return macro_bootstrap(values, seed=self.seed, resamples=self.resamples)


def done(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record.state == "done"]


def grouped(records: Iterable[Record], key: Callable[[Record], str]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return dict(sorted(groups.items()))


@dataclass(frozen=True)
class Counts:
    """Prompts or slices: true and false positives, false and true negatives."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def line(self) -> Line:
        n = self.tp + self.fp + self.fn + self.tn
        sensitivity = rate(self.tp, self.tp + self.fn)
        rejection = rate(self.tn, self.tn + self.fp)
        return {
            "accuracy": rate(self.tp + self.tn, n),
            "sensitivity": sensitivity,
            "rejection rate": rejection,
            "balanced accuracy": Number((sensitivity.value + rejection.value) / 2, n),
            **{name: Number(getattr(self, name) / n if n else NAN, n) for name in ("tp", "fp", "fn", "tn")},
        }


def rate(k: int, n: int) -> Number:
    return Number(k / n if n else NAN, n, wilson(k, n))


def counts_of(rows: Iterable[Row]) -> Counts:
    pairs = [(row.is_found, row.is_present) for row in rows]
    return Counts(*(pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))))


def auroc_of(rows: Sequence[Row], score: Callable[[Row], float]) -> Number:
    known = [row for row in rows if not math.isnan(score(row))]
    present = [score(row) for row in known if row.is_present]
    absent = [score(row) for row in known if not row.is_present]
    return Number(auroc(present, absent), len(known))
