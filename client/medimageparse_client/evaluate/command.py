"""What `medimageparse evaluate` does; the command line imports it where the extra [evaluate] is installed."""

import argparse
import platform
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from medimageparse_client.cli.connection import connect
from medimageparse_client.cli.console import DONE, SOME_FAILED, WrongCommandLine, version, warn, write
from medimageparse_client.errors import ServerUnavailable
from medimageparse_client.evaluate.answers import Answers, PredictedFiles, ServerAnswers, saved_names
from medimageparse_client.evaluate.cases import Case, CaseError, Sentences
from medimageparse_client.evaluate.compare import CannotCompare, compare, comparison_report, read_summary
from medimageparse_client.evaluate.layouts import Layout, cases_in, chosen, recognised
from medimageparse_client.evaluate.numbers import Resampling
from medimageparse_client.evaluate.outputs import (
    COMPARISON,
    TABLES,
    check_free,
    write_comparison,
    write_pictures,
    write_tables,
)
from medimageparse_client.evaluate.records import Journal, OtherSettings, Record
from medimageparse_client.evaluate.run import Run, Settings
from medimageparse_client.evaluate.summary import summarise
from medimageparse_client.retry import Retry

# a bright square in a dark one: a request that costs little
PROBE = np.pad(np.full((24, 24, 3), 160, np.uint8), ((12, 12), (12, 12), (0, 0)), constant_values=40)


def compare_runs(args: argparse.Namespace) -> int:
    first, second = args.compare
    if not args.force:
        check_free(args.output, COMPARISON)
    try:
        comparison = compare(read_summary(first), read_summary(second), seed=args.seed)
    except CannotCompare as error:
        raise WrongCommandLine(str(error)) from error
    report = comparison_report(comparison, (str(first), str(second)))
    write_comparison(args.output, comparison, report)
    write(sys.stdout, report)
    return DONE


def run(args: argparse.Namespace) -> int:
    layout, cases, omitted = find_cases(args)
    sentences = Sentences(args.choice or ("standard" if layout == "biomedparse" else "first"), args.seed)
    if sentences.choice in ("standard", "target") and layout != "biomedparse":
        raise WrongCommandLine(f"--prompt {sentences.choice} is for images; a volume's case has its sentences")
    settings = Settings(layout, sentences, args.negatives, not args.no_surface)
    path = args.output / "cases.jsonl"
    if not (args.force or args.restart or path.exists()):  # else the rest is of the same run
        check_free(args.output, TABLES)
        if args.save_predictions:
            check_free(args.save_predictions, (name for case in cases for name in saved_names(case)))
    answers = answers_of(args, layout)
    if args.save_predictions:
        args.save_predictions.mkdir(parents=True, exist_ok=True)
    journal = Journal(path, settings.as_json(answers))
    try:
        journal.open(restart=args.restart)
    except OtherSettings as error:
        raise WrongCommandLine(str(error)) from error
    with journal, tqdm(total=len(cases), unit="case", disable=None) as bar:
        progress = Progress(bar)
        new_run = Run(cases, answers, settings, save=args.save_predictions, workers=args.workers, tell=progress.tell)
        bar.update(sum(journal.is_answered(case.name) for case in cases))
        records = new_run.into(journal)
    draw = Resampling(args.seed, args.bootstrap, patient_by(args.cluster) if args.cluster else None)
    versions = {"medimageparse-client": version(), "numpy": np.__version__, "python": platform.python_version()}
    summary = summarise(
        records, layout, settings.as_json(answers), versions, draw, p_value=args.p_value, omitted=omitted
    )
    write_tables(args.output, summary, records)
    write_pictures(args.output, records, cases, answers, sentences, args.worst)
    n_failed, report = len(summary.failures), args.output / "report.md"
    write(sys.stdout, f"{len(summary.cases)} of {len(records)} cases answered, {n_failed} failed; {report}\n")
    return SOME_FAILED if n_failed else DONE


def find_cases(args: argparse.Namespace) -> tuple[Layout, list[Case], list[str]]:
    """The layout, the chosen cases, and what is left out."""
    if not args.images.is_dir():
        raise WrongCommandLine(f"{args.images} is not a folder")
    try:
        layout = args.layout or recognised(args.images)
        found = cases_in(args.images, args.ground_truth, layout)
    except CaseError as error:
        raise WrongCommandLine(str(error)) from error
    cases = chosen(found, args.select, args.limit)
    if not cases:
        raise WrongCommandLine(f"{args.images} has no case that is wanted; it has {len(found)} in all")
    warn(f"layout {layout}: {len(cases)} of {len(found)} cases")
    return layout, cases, [f"{len(found) - len(cases)} of {len(found)} cases"] if len(cases) < len(found) else []


def answers_of(args: argparse.Namespace, layout: str) -> Answers:
    if args.predictions:
        return PredictedFiles(args.predictions, {"predictions": "files"})
    model = "medimageparse" if layout == "biomedparse" else "medimageparse_3d"

    def is_back() -> bool:
        with connect(args, 60.0) as client:
            return bool(client.health(canary=True).models.get(model))

    with connect(args, 60.0) as client:
        state = client.health()
    if not state.models.get(model):
        raise state.error or ServerUnavailable(f"the server at {args.url} has not loaded {model}")
    answers = ServerAnswers(lambda: connect(args), Retry(args.retry_for, is_back, warn))
    answers.networks = networks_of(answers, model)
    return answers


def networks_of(answers: ServerAnswers, model: str) -> Mapping[str, Any]:
    """Which networks the server has, by the report of a tiny request."""

    def ask() -> Mapping[str, Any]:
        with answers.connect() as client:
            if model == "medimageparse":
                return client.segment_image(PROBE, "liver").report
            return client.segment(PROBE, "liver", affine=np.eye(4), orientation="stored", intensity="none").report

    networks = answers.retry.ask(ask)["networks"]
    return {name: networks[name] for name in ("variant", "precision", "runtime", "checkpoint_sha256", "graphs")}


class Progress:
    """The bar, with the mean of what was answered in this run."""

    def __init__(self, bar: "tqdm[Any]") -> None:
        self.bar = bar
        self.sums: dict[str, list[float]] = {}

    def tell(self, record: Record) -> None:
        self.bar.update()
        if record.state == "failed":
            warn(f"{record.name}: {record.error}")
        for metric in ("DSC", "F1", "Dice"):
            value = record.metrics.get(metric)
            if value is not None and value == value:
                self.sums.setdefault(metric, []).append(value)
        self.bar.set_postfix({metric: f"{sum(values) / len(values):.3f}" for metric, values in self.sums.items()})


def patient_by(regex: re.Pattern[str]) -> Callable[[str], str]:
    """The patient of a case: group 1 of the pattern, or the whole name where it does not fit."""

    def patient(name: str) -> str:
        found = regex.search(name)
        return found.group(1) if found and found.group(1) is not None else name

    return patient
