"""medimageparse evaluate"""

import argparse
import json
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from medimageparse_client.cli.arguments import Commands, positive, server_options
from medimageparse_client.cli.connection import connect
from medimageparse_client.cli.console import DONE, EXIT_CODE_HELP, SOME_FAILED, WrongCommandLine, version, warn, write
from medimageparse_client.errors import ServerUnavailable
from medimageparse_client.files import write_file
from medimageparse_client.retry import Retry

if TYPE_CHECKING:  # scipy and matplotlib are there with the extra [evaluate] only
    from medimageparse_client.evaluate.answers import Answers, ServerAnswers
    from medimageparse_client.evaluate.cases import Case
    from medimageparse_client.evaluate.layouts import Layout
    from medimageparse_client.evaluate.records import Record

NEEDS = "evaluate needs more libraries: pip install 'medimageparse-client[evaluate]'"
PROBE = np.pad(np.full((24, 24, 3), 160, np.uint8), ((12, 12), (12, 12), (0, 0)), constant_values=40)
HELP = """\
IMAGES is a folder in one of four layouts, which is recognised and said:
  challenge    .npz files of the CVPR 2025 text-guided challenge; the truth in a second folder, or in the same files
  amos22       imagesVa/ of AMOS22 as published, labelsVa/ beside it
  nifti        NIfTI files; label maps of the same names in a second folder, and prompts.json: {"1": "liver", ...,
               "instance_label": 0}, or a folder prompts/ with such a file for each case
  biomedparse  BiomedParseData: sets with a list (.json) beside a folder of images and one of masks
OUT gets report.md (the tables, ours beside the model card's), summary.json, cases.csv, labels.csv, cases.jsonl, a box
plot and pictures of the worst cases. A run that was stopped goes on where it was.

examples:
  medimageparse evaluate 3D_val_npz -o results/challenge
  medimageparse evaluate amos22/imagesVa -o results/amos22 --url gpu-server:8001
  medimageparse evaluate 3D_val_npz --predictions theirs/ -o results/theirs
  medimageparse evaluate --compare results/fp32/summary.json results/fp16/summary.json -o results/fp16-against-fp32

"""


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        parents=[server_options()],
        help="score the server on cases with a known truth, beside the model cards' numbers",
        usage="%(prog)s IMAGES -o OUT [options]",
        epilog=HELP + EXIT_CODE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=evaluate)
    parser.add_argument("images", type=Path, nargs="?", metavar="IMAGES", help="folder of the cases")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for the results")
    parser.add_argument("--ground-truth", type=Path, metavar="DIR", help="folder of the truth, if it has another name")
    parser.add_argument("--layout", choices=("challenge", "amos22", "nifti", "biomedparse"), help="if not recognised")
    parser.add_argument("--predictions", type=Path, metavar="DIR", help="score these answers, ask no server")
    parser.add_argument("--save-predictions", type=Path, metavar="DIR", help="write the answers here too")
    parser.add_argument(
        "--prompt",
        dest="choice",
        choices=("standard", "target", "first", "random"),
        help="of several sentences the first or a random one; for images also TARGET in SITE MODALITY (standard) or "
        "TARGET alone, which has p-values (default: standard for images, first for volumes)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of random sentences, negatives and intervals (default: 0)")
    parser.add_argument(
        "--negatives", type=int, default=0, metavar="N", help="3D: also ask N prompts of other data sets (default: 0)"
    )
    parser.add_argument("--bootstrap", type=positive, default=2000, metavar="N", help="draws (default: %(default)s)")
    parser.add_argument(
        "--cluster",
        type=pattern,
        metavar="REGEX",
        help="its group 1 is the patient in a case's name: patients are drawn",
    )
    parser.add_argument(
        "--p-value", type=float, default=0.05, help="2D: absent is what is below (default: %(default)s)"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N cases")
    parser.add_argument("--select", metavar="GLOB", help="only the cases whose names fit")
    parser.add_argument("--workers", type=positive, default=2, metavar="N", help="cases at a time (default: 2)")
    parser.add_argument("--worst", type=int, default=3, metavar="N", help="cases to draw (default: 3)")
    parser.add_argument("--no-surface", action="store_true", help="leave out NSD, which takes seconds a case")
    parser.add_argument("--restart", action="store_true", help="forget what OUT holds and begin anew")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("A.json", "B.json"), help="two summaries, by case")
    parser.add_argument("--retry-for", type=float, default=120.0, metavar="SECONDS", help="as for segment")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for a request (default: %(default)g)")


def pattern(text: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"no regular expression: {error}") from error
    if compiled.groups < 1:
        raise argparse.ArgumentTypeError("it has no group; put the patient's part in brackets")
    return compiled


def evaluate(args: argparse.Namespace) -> int:
    """Evaluates, or compares two evaluations."""
    try:
        import medimageparse_client.evaluate.pictures  # noqa: F401, all that the extra brings
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("medimageparse"):
            raise
        raise WrongCommandLine(f"{NEEDS} ({error.name} is missing)") from error
    args.output.mkdir(parents=True, exist_ok=True)
    if args.compare:
        return compare_runs(args)
    if args.images is None:
        raise WrongCommandLine("name the folder of the cases, or --compare two summaries")
    return run(args)


def compare_runs(args: argparse.Namespace) -> int:
    from medimageparse_client.evaluate.compare import CannotCompare, compare, comparison_report, read_summary

    first, second = args.compare
    try:
        comparison = compare(read_summary(first), read_summary(second), seed=args.seed)
    except CannotCompare as error:
        raise WrongCommandLine(str(error)) from error
    write_json(args.output / "comparison.json", comparison)
    report = comparison_report(comparison, (str(first), str(second)))
    write_file(args.output / "comparison.md", report.encode())
    write(sys.stdout, report)
    return DONE


def run(args: argparse.Namespace) -> int:
    from medimageparse_client.evaluate.cases import Sentences
    from medimageparse_client.evaluate.records import Journal, OtherSettings
    from medimageparse_client.evaluate.run import Run, Settings

    layout, cases, omitted = find_cases(args)
    sentences = Sentences(args.choice or ("standard" if layout == "biomedparse" else "first"), args.seed)
    if sentences.choice in ("standard", "target") and layout != "biomedparse":
        raise WrongCommandLine(f"--prompt {sentences.choice} is for images; a volume's case has its sentences")
    settings = Settings(layout, sentences, args.negatives, not args.no_surface)
    answers = answers_of(args, layout)
    if args.save_predictions:
        args.save_predictions.mkdir(parents=True, exist_ok=True)
    journal = Journal(args.output / "cases.jsonl", settings.as_json(answers))
    try:
        journal.open(restart=args.restart)
    except OtherSettings as error:
        raise WrongCommandLine(str(error)) from error
    with journal, tqdm(total=len(cases), unit="case", disable=None) as bar:
        progress = Progress(bar)
        new_run = Run(cases, answers, settings, save=args.save_predictions, workers=args.workers, tell=progress.tell)
        bar.update(sum(case.name in journal.records for case in cases))
        records = new_run.into(journal)
    return write_results(args, layout, records, cases, answers, sentences, settings.as_json(answers), omitted)


def find_cases(args: argparse.Namespace) -> "tuple[Layout, list[Case], list[str]]":
    """The layout, the chosen cases, and what is left out."""
    from medimageparse_client.evaluate.cases import CaseError
    from medimageparse_client.evaluate.layouts import cases_in, chosen, recognised

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


def answers_of(args: argparse.Namespace, layout: str) -> "Answers":
    from medimageparse_client.evaluate.answers import PredictedFiles, ServerAnswers

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


def networks_of(answers: "ServerAnswers", model: str) -> Mapping[str, Any]:
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

    def tell(self, record: "Record") -> None:
        self.bar.update()
        if record.state == "failed":
            warn(f"{record.name}: {record.error}")
        for metric in ("DSC", "F1", "Dice"):
            value = record.metrics.get(metric)
            if value is not None and value == value:
                self.sums.setdefault(metric, []).append(value)
        self.bar.set_postfix({metric: f"{sum(values) / len(values):.3f}" for metric, values in self.sums.items()})


def write_results(
    args: argparse.Namespace,
    layout: "Layout",
    records: "Sequence[Record]",
    cases: "Sequence[Case]",
    answers: "Answers",
    sentences: Any,
    settings: Mapping[str, Any],
    omitted: Sequence[str],
) -> int:
    from medimageparse_client.evaluate.numbers import Resampling
    from medimageparse_client.evaluate.pictures import box_plot, worst_cases
    from medimageparse_client.evaluate.report import cases_csv, labels_csv, report
    from medimageparse_client.evaluate.summary import summarise

    draw = Resampling(args.seed, args.bootstrap, patient_by(args.cluster) if args.cluster else None)
    versions = {"medimageparse-client": version(), "numpy": np.__version__, "python": platform.python_version()}
    summary = summarise(records, layout, settings, versions, draw, p_value=args.p_value, omitted=omitted)
    out: Path = args.output
    write_json(out / "summary.json", summary.as_json())
    write_file(out / "report.md", report(summary).encode())
    write_file(out / "cases.csv", cases_csv(records).encode())
    write_file(out / "labels.csv", labels_csv(records).encode())
    box_plot(records, out / "structures.png")
    if args.worst > 0:
        (out / "worst").mkdir(exist_ok=True)
        worst_cases(records, cases, answers, sentences, args.worst, out / "worst")
    n_failed = len(summary.failures)
    write(
        sys.stdout, f"{len(summary.cases)} of {len(records)} cases answered, {n_failed} failed; {out / 'report.md'}\n"
    )
    return SOME_FAILED if n_failed else DONE


def patient_by(regex: re.Pattern[str]) -> Callable[[str], str]:
    """The patient of a case: group 1 of the pattern, or the whole name where it does not fit."""

    def patient(name: str) -> str:
        found = regex.search(name)
        return found.group(1) if found and found.group(1) is not None else name

    return patient


def write_json(path: Path, value: Any) -> None:
    write_file(path, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
