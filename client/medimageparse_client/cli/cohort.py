"""medimageparse cohort"""

import argparse
import os
from collections.abc import Callable
from typing import get_args

from medimageparse_contract.models import MODEL_3D

from medimageparse_client.cli.arguments import (
    LOCAL,
    ONE_PROMPT_A_STRUCTURE,
    Commands,
    add_prompts,
    file_name,
    not_negative,
    positive,
    seconds,
    server_options,
)
from medimageparse_client.cli.cohort_cases import find_cases
from medimageparse_client.cli.connection import connect
from medimageparse_client.cli.console import DONE, EXIT_CODE_HELP, SOME_FAILED, WrongCommandLine, exit_code, warn
from medimageparse_client.cli.segment import VOLUMES
from medimageparse_client.cli.segment_options import add_reading, add_series
from medimageparse_client.client import Client
from medimageparse_client.cohort.case import Case, WrongCases
from medimageparse_client.cohort.pace import Pace
from medimageparse_client.cohort.records import Records
from medimageparse_client.cohort.run import Run
from medimageparse_client.cohort.servers import Servers
from medimageparse_client.cohort.shards import shard_of
from medimageparse_client.cohort.tables import Sums, has_parquet, write_tables
from medimageparse_client.errors import InvalidRequest
from medimageparse_client.files import check_place
from medimageparse_client.results.segmented import SegType
from medimageparse_client.results.writers import ENDINGS, SEG

HEALTH_TIMEOUT_S = 60.0
HELP = """\
MANIFEST is a .csv or .tsv with the column file, and perhaps id, prompts (separated by &), preset, intensity,
orientation, slice_axis, time_point and series, which go before the options. FOLDER is searched for volumes.
DIR gets results/, failures/ and the tables summary, cases and failed. What is done is not asked again: give the same
command again after whatever ended it.

examples:
  medimageparse cohort scans.csv --prompt "liver" --prompt "spleen" -o out --url gpu1:8001,gpu2:8001
  medimageparse cohort scans/ --recursive --preset CT-Abdomen -o out --shard 0/3
  medimageparse cohort scans.csv --preset CT-Abdomen -o out --retry-failed

"""


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "cohort",
        parents=[server_options(several=True)],
        help="segment hundreds to millions of volumes, resumable, by several servers",
        usage="%(prog)s MANIFEST.csv|FOLDER -o DIR [options]",
        epilog=HELP + EXIT_CODE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, kind=VOLUMES)
    parser.add_argument("source", type=file_name, metavar="MANIFEST.csv|FOLDER", help="the volumes")
    parser.add_argument("-o", "--output", type=file_name, required=True, metavar="DIR", help="folder for all of it")
    add_prompts(parser.add_argument_group("what to look for, where the manifest does not say", ONE_PROMPT_A_STRUCTURE))
    results = parser.add_argument_group("results")
    results.add_argument(
        "--format", choices=[ending[1:] for ending in ENDINGS], default="nii.gz", help="default: %(default)s"
    )
    results.add_argument("--seg-type", choices=get_args(SegType), default="binary", help=f"what a {SEG} holds")
    results.add_argument("--overlap", action="store_true", help="structures are whole and may overlap")
    add_run(parser.add_argument_group("how it runs"))
    add_series(parser.add_argument_group("which volume of the input"))
    add_reading(parser.add_argument_group("how volumes are read"))


def add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--recursive", action="store_true", help="search the folders in FOLDER too")
    group.add_argument("--shard", metavar="I/N", help="the I-th of N parts, from 0")
    group.add_argument(
        "--shards", type=positive, metavar="N", help="how many; JOB_COMPLETION_INDEX says which one this is"
    )
    group.add_argument("--retry-failed", action="store_true", help="ask again for what failed")
    group.add_argument(
        "--checksum", action="store_true", help="compare volumes and results by content, not by size and time"
    )
    group.add_argument("--tables", action="store_true", help="ask nothing: write the tables of all that lies there")
    group.add_argument(
        "--in-flight",
        type=positive,
        default=8,
        metavar="N",
        help="requests at a time for each address at most; fewer where it has no room (default: %(default)s)",
    )
    group.add_argument("--timeout", type=seconds, default=600.0, help="seconds for a request (default: %(default)g)")
    group.add_argument(
        "--retry-for",
        type=not_negative,
        default=120.0,
        metavar="SECONDS",
        help="how long all servers may be away at a stretch; 0 never (default: %(default)g)",
    )
    group.add_argument(
        "--progress-every",
        type=seconds,
        default=30.0,
        metavar="SECONDS",
        help="between two lines of progress where there is no terminal (default: %(default)g)",
    )
    group.add_argument("--quiet", action="store_true", help="tell errors only")


def run(args: argparse.Namespace) -> int:
    """Asks for what is to do and writes the tables; gives the exit code."""
    try:
        shard = shard_of(args.shard, args.shards, os.environ)
        cases, notes = find_cases(args)
    except (WrongCases, InvalidRequest) as error:
        raise WrongCommandLine(str(error)) from error
    cases = [case for case in cases if case.id in shard]
    check_place(args.output / "summary.csv")
    records = Records(args.output)
    records.sweep()
    say: Callable[[str], None] = (lambda text: None) if args.quiet else warn
    for note in notes:
        say(note)
    asked = None
    try:
        if not args.tables:
            asked = ask(args, cases, records, say)
    finally:
        sums = write_tables(args.output, shard.suffix, cases, records)
    say(words_of(sums, len(cases), shard.suffix))
    if len(sums.networks) > 1:
        say(f"the results are of {len(sums.networks)} different networks; cases{shard.suffix}.csv says which is which")
    if not has_parquet():
        say("Parquet needs one more library: pip install 'medimageparse-client[parquet]'")
    final = asked.servers.final if asked else None
    if final:
        warn(f"{final}; {sums.left} volumes are left, and the same command goes on with them")
        return exit_code(final)
    if not sums.failed:
        return DONE
    return asked.codes.pop() if asked and len(asked.codes) == 1 and not sums.done else SOME_FAILED


def ask(args: argparse.Namespace, cases: list[Case], records: Records, say: Callable[[str], None]) -> Run:
    urls = list(dict.fromkeys(url.strip() for text in args.url or [LOCAL] for url in text.split(",") if url.strip()))
    if not urls:
        raise WrongCommandLine("--url names no server")

    def client_of(url: str, timeout_s: float | None = None) -> Client:
        return connect(argparse.Namespace(**{**vars(args), "url": url}), timeout_s)

    def segments(url: str) -> bool:
        with client_of(url, HEALTH_TIMEOUT_S) as client:
            return bool(client.health(canary=True).models.get(MODEL_3D))

    for url in urls:
        client_of(url).close()  # a wrong address or certificate is told at once
    servers = Servers(urls, args.in_flight, args.retry_for, segments, say)
    asked = Run(
        records,
        servers,
        client_of,
        workers=args.in_flight * len(urls),
        code_of=exit_code,
        by_content=args.checksum,
        retry_failed=args.retry_failed,
    )
    pace = Pace(len(cases), args.progress_every, say, is_quiet=args.quiet)
    try:
        for state in asked.over(cases):
            pace.add(state)
    finally:
        pace.close()
    return asked


def words_of(sums: Sums, total: int, suffix: str) -> str:
    """No id and no file: those are in the tables."""
    failed = ", ".join(f"{n} {kind}" for kind, n in sorted(sums.failed.items()))
    words = f"{sums.done} of {total} volumes segmented"
    return f"{words}; failed: {failed} (failed{suffix}.csv says which)" if failed else words
