"""The command `medimageparse`."""

import argparse
import json
import math
import re
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from medimageparse_client.client import Client, Intensity, Orientation, check_prompts, split_url
from medimageparse_client.errors import (
    InvalidRequest,
    InvalidVolume,
    MedImageParseError,
    RequestTimeout,
    ServerError,
    ServerUnavailable,
)
from medimageparse_client.segmentation import Segmentation
from medimageparse_client.volume import SUFFIXES

DONE, SOME_FAILED, INTERRUPTED = 0, 1, 130

# the first that fits
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (ServerUnavailable, 3),
    (RequestTimeout, 4),
    (OSError, 5),
    (InvalidVolume, 5),
    (InvalidRequest, 6),
    (ServerError, 7),
)

EXIT_CODE_HELP = """\
exit codes:
  0  done                     4  no answer in time
  1  some of several failed   5  a file cannot be read or written
  2  wrong command line       6  refused; the message says what to send instead
  3  server not available     7  the server failed
"""

SEGMENT_HELP = f"""\
The first argument is a volume, or a folder of volumes, and the others are prompts. With --prompt or --prompts-file
all arguments are volumes and folders. For several volumes -o, --preview and --report name folders, and the results
are called after the volumes. In the label map, label 1 is the first prompt, 2 the second, and so on.

examples:
  medimageparse segment ct.nii.gz "liver" "left kidney" -o masks.nii.gz --preview masks.png --report report.json
  medimageparse segment scans/ "liver" "left kidney" -o masks/
  medimageparse segment a.nii.gz b.nii.gz --prompt "liver" --prompt "left kidney" -o masks/ --preview masks/

{EXIT_CODE_HELP}"""

# option -> the endings of the file it names; the first is given to results in a folder
RESULTS: dict[str, tuple[str, ...]] = {"output": (".nii.gz", ".nii"), "preview": (".png",), "report": (".json",)}


@dataclass(frozen=True)
class Job:
    """One volume, and the file to write for each option of RESULTS that is given."""

    volume: Path
    results: dict[str, Path]


def main(argv: list[str] | None = None) -> int:
    """Runs a command line and gives its exit code."""
    parser = build_parser()
    # argparse does not look for prompts after an option; it hands them back
    args, rest = parser.parse_known_args(argv)
    unknown = [text for text in rest if text.startswith("-") or args.command != "segment"]
    if unknown:
        parser.error(f"unrecognized argument: {unknown[0]}")
    try:
        split_url(args.url, args.protocol)
        if args.command == "health":
            return health(args)
        jobs, prompts = plan(args, [*args.arguments, *rest])
    except ValueError as error:
        parser.error(str(error))
    except (MedImageParseError, OSError) as error:
        return fail(error)
    try:
        return segment_one(args, jobs[0], prompts) if len(jobs) == 1 else segment_many(args, jobs, prompts)
    except (MedImageParseError, OSError) as error:
        return fail(error)
    except KeyboardInterrupt:
        sys.stderr.write("medimageparse: stopped\n")
        return INTERRUPTED


def build_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="medimageparse",
        description="Segment medical volumes from text prompts on a Triton Inference Server. For research only.",
        epilog=EXIT_CODE_HELP,
        formatter_class=raw,
    )
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument("--url", default="localhost:8001", help="host:port of the server (default: %(default)s)")
    server.add_argument("--protocol", choices=["grpc", "http"], help="default: grpc, or that of http://host:port")
    commands = parser.add_subparsers(dest="command", required=True)

    segment = commands.add_parser(
        "segment",
        parents=[server],
        help="segment one or more volumes",
        usage="%(prog)s VOLUME PROMPT... -o OUTPUT [options]",
        epilog=SEGMENT_HELP,
        formatter_class=raw,
    )
    segment.add_argument("arguments", nargs="+", metavar="VOLUME PROMPT", help="a .nii or .nii.gz file and the prompts")
    segment.add_argument("-o", "--output", type=Path, required=True, help="label map to write (.nii.gz or .nii)")
    segment.add_argument("--preview", type=Path, help="picture of a few slices to write (.png)")
    segment.add_argument("--report", type=Path, help="the server's report to write (.json)")
    segment.add_argument("--prompt", action="append", default=[], help="a prompt; may be repeated")
    segment.add_argument("--prompts-file", type=Path, help="a text file, one prompt a line; # begins a comment line")
    segment.add_argument("--intensity", choices=get_args(Intensity), default="auto", help="default: %(default)s")
    segment.add_argument("--orientation", choices=get_args(Orientation), default="LAS", help="default: %(default)s")
    segment.add_argument("--slice-axis", choices=["auto", "0", "1", "2"], default="auto", help="default: %(default)s")
    segment.add_argument("--timeout", type=seconds, default=600.0, help="seconds for a volume (default: %(default)g)")
    segment.add_argument(
        "--in-flight", type=int, choices=range(1, 33), metavar="N", default=3, help="requests at a time (default: 3)"
    )

    health = commands.add_parser(
        "health", parents=[server], help="ask whether the server is ready", epilog=EXIT_CODE_HELP, formatter_class=raw
    )
    health.add_argument("--timeout", type=seconds, default=10.0, help="seconds to wait (default: %(default)g)")
    return parser


def seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def plan(args: argparse.Namespace, arguments: list[str]) -> tuple[list[Job], tuple[str, ...]]:
    """What to do, as far as it can be known before anything is sent; ValueError for a wrong command line."""
    prompts = [*args.prompt, *(read_prompts(args.prompts_file) if args.prompts_file else [])]
    if not prompts:
        arguments, prompts = arguments[:1], arguments[1:]
        if any(prompt.lower().endswith(SUFFIXES) for prompt in prompts):
            raise ValueError("a prompt looks like a volume; for several volumes give each prompt with --prompt")
    elif not all(Path(argument).is_dir() or argument.lower().endswith(SUFFIXES) for argument in arguments):
        raise ValueError("with --prompt or --prompts-file all arguments are folders or .nii or .nii.gz files")
    volumes = find_volumes(arguments)
    into_folders = len(arguments) > 1 or Path(arguments[0]).is_dir()
    jobs = [Job(volume, result_paths(args, volume, into_folders)) for volume in volumes]

    written = [path.resolve() for job in jobs for path in job.results.values()]
    if len(set(written)) < len(written):
        raise ValueError("two results would have the same name; segment the volumes with equal names one by one")
    if {volume.resolve() for volume in volumes} & set(written):
        raise ValueError("a label map would overwrite its volume; choose another -o")
    return jobs, check_prompts(prompts)


def read_prompts(path: Path) -> list[str]:
    """The lines of a file, without blank ones and comments."""
    lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def find_volumes(arguments: list[str]) -> list[Path]:
    """The files, and in their place the .nii and .nii.gz files of each folder, by name."""
    volumes = []
    for argument in map(Path, arguments):
        if argument.is_dir():
            volumes += sorted(path for path in argument.iterdir() if path.name.lower().endswith(SUFFIXES))
        else:
            volumes.append(argument)
    if not volumes:
        raise ValueError("the folder holds no .nii or .nii.gz file")
    return volumes


def result_paths(args: argparse.Namespace, volume: Path, into_folders: bool) -> dict[str, Path]:
    """Option -> file to write for one volume."""
    stem = re.sub(r"\.nii(\.gz)?$", "", volume.name, flags=re.IGNORECASE)
    paths = {option: getattr(args, option) for option in RESULTS if getattr(args, option)}
    for option, path in paths.items():
        names_file = path.name.endswith(RESULTS[option])
        if into_folders and names_file:
            raise ValueError(f"for several volumes --{option} names a folder")
        if into_folders or path.is_dir():
            paths[option] = path / (stem + RESULTS[option][0])
        elif not names_file:
            raise ValueError(f"--{option} names a {' or '.join(RESULTS[option])} file")
    return paths


def segment_one(args: argparse.Namespace, job: Job, prompts: tuple[str, ...]) -> int:
    try:
        sys.stdout.write(run(args, job, prompts))
    except (MedImageParseError, OSError) as error:
        return fail(error, job.volume)
    return DONE


def segment_many(args: argparse.Namespace, jobs: list[Job], prompts: tuple[str, ...]) -> int:
    """Keeps a few requests in flight; a volume that fails does not stop the others."""
    with Client(args.url, protocol=args.protocol, timeout_s=args.timeout) as client:
        state = client.health()
    if not state.is_ready:
        raise ServerUnavailable(state.problem or f"the server at {args.url} has not loaded the model")
    n_failed = 0
    executor = ThreadPoolExecutor(args.in_flight)
    try:
        job_of = {executor.submit(run, args, job, prompts): job for job in jobs}
        for future in tqdm(as_completed(job_of), total=len(jobs), unit="volume", disable=None):
            try:
                future.result()
            except (MedImageParseError, OSError) as error:
                n_failed += 1
                tqdm.write(describe(error, job_of[future].volume), file=sys.stderr, end="")
    finally:
        executor.shutdown(cancel_futures=True)  # after Ctrl-C: waits for what the server is working on, starts no more
    sys.stdout.write(f"{len(jobs) - n_failed} of {len(jobs)} volumes segmented\n")
    return SOME_FAILED if n_failed else DONE


def run(args: argparse.Namespace, job: Job, prompts: tuple[str, ...]) -> str:
    """Segments one volume, writes its results and gives a table of what was found."""
    with Client(args.url, protocol=args.protocol, timeout_s=args.timeout) as client:
        result = client.segment(
            job.volume,
            prompts,
            intensity=args.intensity,
            orientation=args.orientation,
            slice_axis=args.slice_axis,
        )
    for path in job.results.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    result.save(job.results["output"])
    if "preview" in job.results:
        result.preview(job.results["preview"])
    if "report" in job.results:
        report = json.dumps(result.report, indent=2, ensure_ascii=False)
        job.results["report"].write_text(report + "\n", "utf-8")
    return table(result)


def table(result: Segmentation) -> str:
    """One line a prompt."""
    lines = [f"{'label':>5}  {'score':>5}  {'voxels':>9}  {'ml':>8}  prompt\n"]
    for prompt, label in result.labels.items():
        described = result.describe(prompt)
        score, voxels, volume_ml = (described[name] for name in ("highest_score", "voxels", "volume_ml"))
        ml = "-" if volume_ml is None else f"{volume_ml:.1f}"
        cut = "  (cut to 77 tokens)" if described["truncated"] else ""
        lines.append(f"{label:>5}  {score:>5.2f}  {voxels:>9}  {ml:>8}  {prompt}{cut}\n")
    return "".join(lines)


def health(args: argparse.Namespace) -> int:
    with Client(args.url, protocol=args.protocol, timeout_s=args.timeout) as client:
        state = client.health()
    if not state.is_live:
        return fail(ServerUnavailable(state.problem or f"the server at {args.url} does not live"))
    sys.stdout.write(f"{state.server} at {args.url}: live\n")
    for name, is_ready in state.models.items():
        sys.stdout.write(f"{name}: {'ready' if is_ready else 'not ready'}\n")
    return DONE if state.is_ready else exit_code(ServerUnavailable())


def fail(error: Exception, volume: Path | None = None) -> int:
    """Says in one sentence what went wrong."""
    sys.stderr.write(describe(error, volume))
    return exit_code(error)


def describe(error: Exception, volume: Path | None = None) -> str:
    sentence = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"medimageparse: {f'{volume}: ' if volume else ''}{sentence}\n"


def exit_code(error: Exception) -> int:
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
