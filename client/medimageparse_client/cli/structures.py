"""medimageparse structures"""

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict

from medimageparse_contract.catalogue import Structure, catalogue, presets, structures

from medimageparse_client.cli.arguments import Commands
from medimageparse_client.cli.console import DONE, WrongCommandLine, write

HELP = """\
What the models were trained to find, the sentence to ask for it with, and the sets that --preset of segment and
segment-image takes. No server is asked.

examples:
  medimageparse structures --model 3d --modality CT
  medimageparse structures --preset CT-Abdomen --json

"""


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "structures",
        help="list what the models know, and their sets",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=list_structures)
    parser.add_argument("--model", choices=["3d", "2d"], help="of volumes or of images (default: both)")
    parser.add_argument("--modality", help="CT, MR, ...")
    parser.add_argument("--preset", metavar="NAME", help="a set, as CT-Abdomen")
    parser.add_argument("--json", action="store_true", help="all that is known of each, with codes and colours")
    parser.add_argument("--debug", action="store_true", help="show where this program failed")


def list_structures(args: argparse.Namespace) -> int:
    rows = structures(args.model, args.modality, args.preset)
    if not rows:
        raise WrongCommandLine(why_none(args))
    write(sys.stdout, json.dumps([asdict(row) for row in rows], indent=2) + "\n" if args.json else table(rows))
    return DONE


def why_none(args: argparse.Namespace) -> str:
    """Which of the options nothing has, and what there is."""
    if args.modality and not structures(args.model, args.modality):
        known = {row.modalities for row in catalogue() if args.model in (None, row.model)}
        return f"no structure has the modality {args.modality}; there are {', '.join(sorted(known))}"
    if args.preset and not structures(args.model, preset=args.preset):
        known = {name for model in ("3d", "2d") if args.model in (None, model) for name in presets(model)}
        return f"no set is called {args.preset}; there are {', '.join(sorted(known))}"
    return f"the set {args.preset} has no structure of the modality {args.modality}; leave one of the two out"


def table(rows: Iterable[Structure]) -> str:
    """One line a structure; in what it is looked for stands in its sentence."""
    cells = [("id", "model", "modality", "sets", "prompt")]
    cells += [(row.id, row.model, row.modalities, ", ".join(row.presets), row.prompt) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    return "".join(f"{line}\n" for line in lines)
