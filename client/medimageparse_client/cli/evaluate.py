"""medimageparse evaluate"""

import argparse
import re
from pathlib import Path

from medimageparse_client.cli.arguments import Commands, positive, server_options
from medimageparse_client.cli.console import EXIT_CODE_HELP, WrongCommandLine

NEEDS = "evaluate needs more libraries: pip install 'medimageparse-client[evaluate]'"
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
    parser.add_argument("--force", action="store_true", help="write over files that no run of OUT has left")
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
        from medimageparse_client.evaluate import command
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("medimageparse"):
            raise
        raise WrongCommandLine(f"{NEEDS} ({error.name} is missing)") from error
    args.output.mkdir(parents=True, exist_ok=True)
    if args.compare:
        return command.compare_runs(args)
    if args.images is None:
        raise WrongCommandLine("name the folder of the cases, or --compare two summaries")
    return command.run(args)
