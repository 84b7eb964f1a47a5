"""Pictures of a run: a box plot of the structures, and the worst cases beside the truth."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from medimageparse_client.evaluate.answers import Answers, read_mask
from medimageparse_client.evaluate.cases import Case, ImageCase, Sentences, VolumeCase
from medimageparse_client.evaluate.numbers import done
from medimageparse_client.evaluate.records import Record
from medimageparse_client.evaluate.scoring import image_rows

N_SLICES = 3
MOST_BOXES = 60
DPI = 110


def box_plot(records: Sequence[Record], path: Path) -> bool:
    """Dice of each structure over the cases that have it, worst median first; False if there is none."""
    dice: dict[str, list[float]] = defaultdict(list)
    for record in done(records):
        for row in record.rows:
            if row.is_scored:
                dice[row.task].append(row.dsc if row.truth + row.predicted else 0.0)
    if not dice:
        return False
    names = sorted(dice, key=lambda name: float(np.median(dice[name])))[:MOST_BOXES]
    figure = Figure(figsize=(9, 1.2 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.boxplot([dice[name] for name in names], orientation="horizontal")
    axes.set_yticks(range(1, len(names) + 1), [f"{shortened(name)} ({len(dice[name])})" for name in names])
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Dice; in brackets the number of cases")
    axes.grid(axis="x", alpha=0.3)
    write(figure, path)
    return True


def worst_cases(
    records: Sequence[Record],
    cases: Iterable[Case],
    answers: Answers,
    sentences: Sentences,
    n: int,
    folder: Path,
) -> list[Path]:
    """The `n` cases of the lowest scores, asked once more and drawn: the truth's outlines and the answer's."""
    by_name = {case.name: case for case in cases}
    scored = [record for record in done(records) if first_metric(record) == first_metric(record)]
    paths = []
    for rank, record in enumerate(sorted(scored, key=first_metric)[:n], start=1):
        case = by_name[record.name]
        path = folder / f"{rank:02d}_{re.sub(r'[^A-Za-z0-9.-]+', '_', record.name.removesuffix('.png'))}.png"
        title = f"{record.name}: {first_metric(record):.3f}"
        if isinstance(case, ImageCase):
            draw_image(case, answers, sentences, title, path)
        else:
            draw_volume(case, answers, sentences, title, path)
        paths.append(path)
    return paths


def first_metric(record: Record) -> float:
    """The metric by which a case is good or bad."""
    return next((record.metrics[name] for name in ("DSC", "F1", "Dice") if name in record.metrics), float("nan"))


def draw_volume(case: VolumeCase, answers: Answers, sentences: Sentences, title: str, path: Path) -> None:
    question = case.load(sentences)
    predicted = answers.of_volume(case, question, question.prompts).labels
    volume = question.volume
    grey = np.asanyarray(nib.load(volume).dataobj) if isinstance(volume, Path) else volume  # type: ignore[attr-defined]
    grey = grey.transpose(2, 1, 0)
    wrong = np.count_nonzero(question.truth != predicted, axis=(1, 2))
    slices = sorted(np.argsort(wrong, kind="stable")[::-1][:N_SLICES].tolist())
    low, high = np.percentile(grey, (1, 99))
    figure = Figure(figsize=(4 * len(slices), 4.6), layout="constrained")
    for axes, k in zip(figure.subplots(1, len(slices), squeeze=False)[0], slices, strict=True):
        axes.imshow(grey[k], cmap="gray", vmin=low, vmax=high)
        for label in question.prompts:
            outline(axes, question.truth[k] == label, "tab:green")
            outline(axes, predicted[k] == label, "tab:red")
        axes.set_title(f"slice {k}")
        axes.set_axis_off()
    figure.suptitle(f"{title}\ngreen: truth, red: answer; the slices that differ most, as stored", fontsize=10)
    write(figure, path)


def draw_image(case: ImageCase, answers: Answers, sentences: Sentences, title: str, path: Path) -> None:
    rows, answer = image_rows(case, answers, sentences)
    n = len(case.annotations)
    figure = Figure(figsize=(4 * n, 4.6), layout="constrained")
    with Image.open(case.image) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    panels = zip(figure.subplots(1, n, squeeze=False)[0], case.annotations, answer.masks, rows, strict=False)
    for axes, annotation, given, row in panels:
        axes.imshow(pixels)
        outline(axes, read_mask(annotation.mask), "tab:green")
        outline(axes, given.mask, "tab:red")
        axes.set_title(f"{shortened(row.prompt)}\n{row.dsc:.3f}", fontsize=9)
        axes.set_axis_off()
    figure.suptitle(f"{title}\ngreen: truth, red: answer", fontsize=10)
    write(figure, path)


def outline(axes: object, mask: npt.NDArray[np.bool_], colour: str) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors=[colour], linewidths=0.8)  # type: ignore[attr-defined]


def shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"


def write(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure).print_png(str(path), metadata={"Software": None})  # type: ignore[no-untyped-call]
