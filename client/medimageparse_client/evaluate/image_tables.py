"""Records of 2D cases -> tables (`evaluation.md`, section 5)."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from medimageparse_client.evaluate import cards
from medimageparse_client.evaluate.image_metrics import MaskCounts, totals
from medimageparse_client.evaluate.numbers import Number, Resampling, Table, auroc_of, done, grouped, rate
from medimageparse_client.evaluate.records import NAN, Record, Row
from medimageparse_client.evaluate.statistics import mean


def dice_of_mask(row: Row) -> float:
    return MaskCounts(row.truth, row.predicted, row.common).dice


def masks_of(records: Iterable[Record]) -> list[tuple[Record, Row]]:
    """All masks that are on the images, with their cases."""
    return [(record, row) for record in done(records) for row in record.rows if row.is_scored]


def image_totals(records: Sequence[Record]) -> Table:
    """Upstream's totals of a split, in percent."""
    table: Table = {}
    for name, cases in grouped(records, lambda record: record.data_set).items():
        counts = [MaskCounts(row.truth, row.predicted, row.common) for _, row in masks_of(cases)]
        if counts:
            table[name] = {metric: Number(value, len(counts), scale=100) for metric, value in totals(counts).items()}
    return table


def image_tasks(records: Sequence[Record], draw: Resampling) -> Table:
    """Dice of each task in each data set and, where it has several, pooled: mean, normal interval, median, spread."""
    masks: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    for record, row in masks_of(records):
        for data_set in (record.data_set, "pooled"):
            masks[row.task, data_set].append((dice_of_mask(row), record.name))
    sets_of: dict[str, set[str]] = defaultdict(set)
    for task, data_set in masks:
        sets_of[task].add(data_set)
    table: Table = {}
    for (task, data_set), pairs in sorted(masks.items()):
        if data_set == "pooled" and len(sets_of[task]) == 2:
            continue
        values, names = zip(*pairs, strict=True)
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else NAN
        half = 1.96 * deviation / math.sqrt(len(values))
        middle = draw.mean(values, names)
        table[f"{task} ({data_set})"] = {
            "mean Dice": middle,
            "mean Dice, normal": Number(middle.value, middle.n, (middle.value - half, middle.value + half))
            if middle.interval is not None
            else Number(middle.value, middle.n),
            "median Dice": Number(float(np.median(values)), len(values)),
            "standard deviation": Number(deviation, len(values)),
        }
    return table


def modality_of_task(task: str) -> str:
    """The modality of a task; the kinds of MRI are one."""
    first = task.split("_", 1)[0]
    return "MRI" if first.startswith("MRI") else first


def image_modalities(records: Sequence[Record], draw: Resampling) -> Table:
    """Over the tasks of each modality: median of medians, mean of means; and over its masks, beside the published."""
    tasks: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for record, row in masks_of(records):
        tasks[row.task].append((dice_of_mask(row), record.name))
    of_modality: dict[str, list[str]] = defaultdict(list)
    for task in tasks:
        of_modality[modality_of_task(task)].append(task)
        of_modality["All"].append(task)
    table: Table = {}
    for modality, names in sorted(of_modality.items()):
        card = cards.IMAGES.get(modality, (None, None, None))
        dice = {task: [value for value, _ in tasks[task]] for task in names}
        values, cases = zip(*(pair for task in names for pair in tasks[task]), strict=True)
        table[modality] = {
            "median of task medians": Number(
                float(np.median([np.median(of_task) for of_task in dice.values()])), len(dice), None, card[0]
            ),
            "mean of task means": Number(mean([mean(of_task) for of_task in dice.values()]), len(dice), None, card[1]),
            "mean over masks": draw.mean(values, cases, card[2]),
        }
    return table


def image_absence(records: Sequence[Record], p_value: float) -> Table:
    """Rejection of what is not on an image, and wrong rejection of what is: by an empty mask, or by its p-value too."""
    rows = [row for record in done(records) for row in record.rows]
    present, absent = ([row for row in rows if row.is_present is wanted] for wanted in (True, False))

    def is_rejected(row: Row) -> bool:
        return not row.is_found or row.p_value < p_value

    categories = [row.has_right_category for row in present if row.has_right_category is not None]
    line = {
        "empty masks of absent": rate(sum(not row.is_found for row in absent), len(absent)),
        "empty masks of present": rate(sum(not row.is_found for row in present), len(present)),
        "rejected absent": rate(sum(map(is_rejected, absent)), len(absent)),
        "rejected present": rate(sum(map(is_rejected, present)), len(present)),
        "AUROC of the p-value": auroc_of(rows, lambda row: row.p_value),
        "AUROC of the mean probability": auroc_of(rows, lambda row: row.score),
        "right category": rate(sum(categories), len(categories)),
    }
    return {"all images": line}
