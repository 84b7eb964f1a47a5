"""Records of 3D cases -> tables (`evaluation.md`, sections 4.4 to 4.6)."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from medimageparse_client.evaluate import cards
from medimageparse_client.evaluate.numbers import (
    Counts,
    Line,
    Number,
    Resampling,
    Table,
    auroc_of,
    counts_of,
    done,
    grouped,
)
from medimageparse_client.evaluate.records import NAN, Record, Row
from medimageparse_client.evaluate.statistics import mean

CASE_METRICS = (
    *("DSC", "NSD", "F1", "DSC_TP"),
    *("NSD_array_order", "DSC_all", "F1_no_wrap", "DSC_TP_no_wrap", "F1_copy", "DSC_TP_copy"),
)


def of_modalities(records: Sequence[Record], draw: Resampling, *, with_card: bool = True) -> Table:
    """Means of the cases of each modality; the card's numbers are those of the challenge's validation set."""
    return {
        modality: case_means(several, draw, cards.CHALLENGE.get(modality, {}) if with_card else {})
        for modality, several in grouped(done(records), lambda record: record.modality).items()
    }


def of_data_sets(records: Sequence[Record], draw: Resampling) -> Table:
    """Means of the cases of each data set; a row "mean of data sets" for each modality."""
    table: Table = {}
    for modality, several in grouped(done(records), lambda record: record.modality).items():
        sets = grouped(several, lambda record: record.data_set)
        lines = {name: case_means(cases, draw, {}) for name, cases in sets.items()}
        table |= {f"{modality} {name}": line for name, line in lines.items()}
        table[f"{modality}, mean of data sets"] = {
            metric: Number(mean([line[metric].value for line in lines.values() if metric in line]), len(lines))
            for metric in CASE_METRICS
            if any(metric in line for line in lines.values())
        }
    return table


def case_means(records: Sequence[Record], draw: Resampling, card: Mapping[str, float]) -> Line:
    names = [record.name for record in records]
    line = {}
    for metric in CASE_METRICS:
        values = [record.metrics.get(metric, NAN) for record in records]
        if not all(map(math.isnan, values)):
            line[metric] = draw.mean(values, names, card.get(metric))
    return line


def with_failures_as_0(records: Sequence[Record]) -> Table:
    """The means of a modality if a failed case scored 0; officially it drops out."""
    table: Table = {}
    for modality, several in grouped(records, lambda record: record.modality).items():
        if not any(record.state == "failed" for record in several):
            continue
        line = {}
        for metric in ("DSC", "NSD", "F1", "DSC_TP"):
            values = [record.metrics.get(metric, NAN) for record in done(several)]
            if values and not all(map(math.isnan, values)):
                values += [0.0] * (len(several) - len(values))
                line[metric] = Number(mean(values), len(values))
        if line:
            table[modality] = line
    return table


def of_organs(records: Sequence[Record], labels: Mapping[int, str], draw: Resampling) -> Table:
    """AMOS22: Dice in percent of each organ over the cases that have it, and four averages; a row a modality."""
    return {
        modality: organ_line(cases, labels, cards.AMOS.get(modality, {}), cards.AMOS_AVERAGE.get(modality), draw)
        for modality, cases in grouped(done(records), lambda record: record.modality).items()
    }


def organ_line(
    cases: Sequence[Record],
    labels: Mapping[int, str],
    card: Mapping[str, float],
    average: float | None,
    draw: Resampling,
) -> Line:
    names = [record.name for record in cases]
    dice = np.full((len(cases), len(labels)), NAN)  # percent; NaN where a case does not have the organ
    column = {label: k for k, label in enumerate(labels)}
    for k, record in enumerate(cases):
        for row in record.rows:
            if row.is_scored and row.label in column:
                dice[k, column[row.label]] = 100 * row.dsc
    organs = {organ: dice[:, column[label]] for label, organ in labels.items()}
    organs = {organ: values for organ, values in organs.items() if not np.isnan(values).all()}
    line = {organ: draw.mean(values.tolist(), names, card.get(organ), 100) for organ, values in organs.items()}
    for name, chosen in (("the card's", [o for o in organs if o in card]), ("all", list(organs))):
        value = mean([line[organ].value for organ in chosen])
        interval = draw.macro(np.stack([organs[organ] for organ in chosen], axis=1)) if chosen else None
        line[f"average of {name} organs"] = Number(value, len(chosen), interval, average, 100)
    pairs = [(value, name) for values in organs.values() for value, name in zip(values.tolist(), names, strict=True)]
    line["average of all pairs"] = draw.mean([value for value, _ in pairs], [name for _, name in pairs], average, 100)
    means = [100 * record.metrics.get("DSC", NAN) for record in cases]
    return line | {"average of case means": draw.mean(means, names, average, 100)}


ALL = "all"


def of_structures(records: Sequence[Record], draw: Resampling) -> Table:
    """Dice of each structure over the cases that have it, and of all pairs of case and structure."""
    pairs: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for record in done(records):
        for row in record.rows:
            if row.is_scored and record.kind == "semantic":
                for task in (row.task, ALL):
                    pairs[task].append((row.dsc, record.name))
    table: Table = {}
    for task in [*sorted(pairs.keys() - {ALL}), *(pairs.keys() & {ALL})]:
        values, names = zip(*pairs[task], strict=True)
        table[task] = {
            "mean Dice": draw.mean(values, names),
            "lowest Dice": Number(min(values), len(values)),
        }
    return table


def existence(records: Sequence[Record]) -> Table:
    """Whether prompts were found that are there, and not found that are not: by volume and by slice."""
    table: Table = {}
    groups = grouped(done(records), lambda record: record.modality)
    if len(groups) > 1:
        groups[ALL] = done(records)
    for modality, cases in groups.items():
        rows = [row for record in cases for row in record.rows]
        table[f"{modality}, volumes"] = counts_of(rows).line() | {"AUROC": auroc_of(rows, lambda row: row.score)}
        slices = [row.slices for row in rows if row.slices is not None]
        if slices:
            table[f"{modality}, slices"] = Counts(*(sum(column) for column in zip(*slices, strict=True))).line()
    return table


def existence_by_prompt(records: Sequence[Record]) -> Table:
    """The same for every prompt that was asked."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for record in done(records):
        for row in record.rows:
            rows[row.task].append(row)
    return {
        task: counts_of(several).line() | {"AUROC": auroc_of(several, lambda row: row.score)}
        for task, several in sorted(rows.items())
    }
