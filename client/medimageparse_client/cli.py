"""The command `medimageparse`."""

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from tqdm import tqdm

from medimageparse_client import image, volume
from medimageparse_client.client import (
    MODEL_2D,
    MODEL_3D,
    Client,
    ImageType,
    Intensity,
    Orientation,
    check_prompts,
)
from medimageparse_client.errors import (
    InvalidImage,
    InvalidRequest,
    InvalidVolume,
    MedImageParseError,
    RequestTimeout,
    ServerError,
    ServerUnavailable,
)
from medimageparse_client.image_segmentation import ImageSegmentation
from medimageparse_client.segmentation import Segmentation

API_KEY = "MEDIMAGEPARSE_API_KEY"  # environment variable; as an option, others would see it in the process list
DONE, SOME_FAILED, INTERRUPTED = 0, 1, 130

# the first that fits
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (ServerUnavailable, 3),
    (RequestTimeout, 4),
    (OSError, 5),
    (InvalidVolume, 5),
    (InvalidImage, 5),
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

SEGMENT_HELP = """\
The first argument is a volume, or a folder of volumes, and the others are prompts. With --prompt or --prompts-file
all arguments are volumes and folders. For several volumes -o, --preview and --report name folders, and the results
are called after the volumes. In the label map, label 1 is the first prompt, 2 the second, and so on.

examples:
  medimageparse segment ct.nii.gz "liver" "left kidney" -o masks.nii.gz --preview masks.png --report report.json
  medimageparse segment scans/ "liver" "left kidney" -o masks/
  medimageparse segment a.nii.gz b.nii.gz --prompt "liver" --prompt "left kidney" -o masks/ --preview masks/

"""

SEGMENT_IMAGE_HELP = """\
The first argument is an image or a DICOM file with one slice, or a folder of them, and the others are prompts. With
--prompt or --prompts-file all arguments are images and folders. With --image-type and no prompt, all that the model
knows in such an image is looked for. For several images -o, --preview and --report name folders, each its own, and
the results are called after the images. In the label map (.png) label 1 is the first prompt, 2 the second, and so on;
where two overlap, the more probable one is shown. An .npz holds the probability of each.

examples:
  medimageparse segment-image xray.png "left lung" "right lung" -o masks.png --preview overlay.png --report report.json
  medimageparse segment-image xray.png --image-type X-Ray-Chest -o masks.png
  medimageparse segment-image slice.dcm "nodule" --window lung -o masks.npz

"""


@dataclass(frozen=True)
class Kind:
    """What a command segments.

    suffixes: of the files it takes
    results: option -> the endings of the file it names; the first is given to results in a folder
    segment: sends one file
    table: what was found, one line a prompt
    """

    noun: str
    model: str
    suffixes: tuple[str, ...]
    results: dict[str, tuple[str, ...]]
    segment: Callable[[argparse.Namespace, Client, Path, tuple[str, ...]], Segmentation | ImageSegmentation]
    table: Callable[[Any], str]


@dataclass(frozen=True)
class Job:
    """One volume or image, and the file to write for each option of its kind's results that is given."""

    source: Path
    results: dict[str, Path]


def main(argv: list[str] | None = None) -> int:
    """Runs a command line and gives its exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # it tells of refused certificates in its own words too
    parser = build_parser()
    # argparse does not look for prompts after an option; it hands them back
    args, rest = parser.parse_known_args(argv)
    unknown = [text for text in rest if text.startswith("-") or args.command == "health"]
    if unknown:
        parser.error(f"unrecognized argument: {unknown[0]}")
    try:
        connect(args).close()  # which sends nothing yet
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
        description="Segment medical images and volumes from text on a Triton Inference Server. For research only.",
        epilog=EXIT_CODE_HELP,
        formatter_class=raw,
    )
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument("--url", default="localhost:8001", help="host:port of the server (default: %(default)s)")
    server.add_argument("--protocol", choices=["grpc", "http"], help="default: grpc, or that of http://host:port")
    server.add_argument(
        "--ca", type=Path, metavar="FILE", help="PEM: who signed the certificate of grpcs:// or https://"
    )
    server.add_argument("--certificate", type=Path, metavar="FILE", help="PEM: who you are, for mutual TLS")
    server.add_argument("--certificate-key", type=Path, metavar="FILE", help="PEM: the key of that certificate")
    server.add_argument("--api-key-file", type=Path, metavar="FILE", help=f"what a proxy asks for; or set {API_KEY}")
    batch = argparse.ArgumentParser(add_help=False)
    batch.add_argument("--report", type=Path, help="the server's report to write (.json)")
    batch.add_argument("--prompt", action="append", default=[], help="a prompt; may be repeated")
    batch.add_argument("--prompts-file", type=Path, help="a text file, one prompt a line; # begins a comment line")
    batch.add_argument("--timeout", type=seconds, default=600.0, help="seconds for a request (default: %(default)g)")
    batch.add_argument(
        "--in-flight", type=int, choices=range(1, 33), metavar="N", default=3, help="requests at a time (default: 3)"
    )
    commands = parser.add_subparsers(dest="command", required=True)

    segment = commands.add_parser(
        "segment",
        parents=[server, batch],
        help="segment one or more volumes",
        usage="%(prog)s VOLUME PROMPT... -o OUTPUT [options]",
        epilog=SEGMENT_HELP + EXIT_CODE_HELP,
        formatter_class=raw,
    )
    segment.set_defaults(kind=VOLUMES, image_type=None)
    segment.add_argument("arguments", nargs="+", metavar="VOLUME PROMPT", help="a .nii or .nii.gz file and the prompts")
    segment.add_argument("-o", "--output", type=Path, required=True, help="label map to write (.nii.gz or .nii)")
    segment.add_argument("--preview", type=Path, help="picture of a few slices to write (.png)")
    segment.add_argument("--intensity", choices=get_args(Intensity), default="auto", help="default: %(default)s")
    segment.add_argument("--orientation", choices=get_args(Orientation), default="LAS", help="default: %(default)s")
    segment.add_argument("--slice-axis", choices=["auto", "0", "1", "2"], default="auto", help="default: %(default)s")

    picture = commands.add_parser(
        "segment-image",
        parents=[server, batch],
        help="segment one or more images",
        usage="%(prog)s IMAGE [PROMPT...] -o OUTPUT [options]",
        epilog=SEGMENT_IMAGE_HELP + EXIT_CODE_HELP,
        formatter_class=raw,
    )
    picture.set_defaults(kind=IMAGES)
    picture.add_argument(
        "arguments", nargs="+", metavar="IMAGE PROMPT", help="a .png, .jpg or .dcm file and the prompts"
    )
    picture.add_argument("-o", "--output", type=Path, required=True, help="label map (.png) or probabilities (.npz)")
    picture.add_argument("--preview", type=Path, help="picture of the image with its labels to write (.png)")
    picture.add_argument("--image-type", choices=get_args(ImageType), help="kind of image; see below")
    together = picture.add_mutually_exclusive_group()
    together.add_argument("--joint", action="store_true", default=None, help="decode all prompts together")
    together.add_argument("--separate", action="store_false", dest="joint", help="decode each prompt alone")
    picture.add_argument("--p-value-threshold", type=float, metavar="P", help="leave out what is less probable")
    picture.add_argument("--window", choices=get_args(image.Window), help="what to see in a CT slice in DICOM")

    health = commands.add_parser(
        "health",
        parents=[server],
        help="have a tiny picture segmented by each model",
        epilog=EXIT_CODE_HELP,
        formatter_class=raw,
    )
    health.add_argument("--timeout", type=seconds, default=60.0, help="seconds to wait (default: %(default)g)")
    return parser


def connect(args: argparse.Namespace) -> Client:
    """A client of the server that the command line names."""
    api_key = args.api_key_file.read_text("utf-8").strip() if args.api_key_file else os.environ.get(API_KEY) or None
    return Client(
        args.url,
        protocol=args.protocol,
        timeout_s=args.timeout,
        ca=args.ca,
        certificate=args.certificate,
        certificate_key=args.certificate_key,
        api_key=api_key,
    )


def seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def plan(args: argparse.Namespace, arguments: list[str]) -> tuple[list[Job], tuple[str, ...]]:
    """What to do, as far as it can be known before anything is sent; ValueError for a wrong command line."""
    kind: Kind = args.kind
    prompts = [*args.prompt, *(read_prompts(args.prompts_file) if args.prompts_file else [])]
    if not prompts and not (args.image_type and all(a.lower().endswith(kind.suffixes) for a in arguments)):
        arguments, prompts = arguments[:1], arguments[1:]
        if any(prompt.lower().endswith(kind.suffixes) for prompt in prompts):
            raise ValueError(f"a prompt looks like a file; for several {kind.noun}s give each prompt with --prompt")
    elif not all(Path(argument).is_dir() or argument.lower().endswith(kind.suffixes) for argument in arguments):
        raise ValueError(f"with --prompt or --prompts-file all arguments are folders or {list_of(kind.suffixes)} files")
    sources = find_sources(arguments, kind)
    into_folders = len(arguments) > 1 or Path(arguments[0]).is_dir()
    jobs = [Job(source, result_paths(args, source, into_folders)) for source in sources]

    written = [path.resolve() for job in jobs for path in job.results.values()]
    if len(set(written)) < len(written):
        raise ValueError(
            f"two results would have the same name; segment {kind.noun}s with equal names one by one, "
            "and give each kind of result its own folder"
        )
    if {source.resolve() for source in sources} & set(written):
        raise ValueError(f"a result would overwrite its {kind.noun}; write it elsewhere")
    return jobs, check_prompts(prompts) if prompts or not args.image_type else ()


def list_of(suffixes: tuple[str, ...]) -> str:
    """The endings as words."""
    return f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"


def read_prompts(path: Path) -> list[str]:
    """The lines of a file, without blank ones and comments."""
    lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def find_sources(arguments: list[str], kind: Kind) -> list[Path]:
    """The files, and in their place the volumes or images of each folder, by name."""
    sources = []
    for argument in map(Path, arguments):
        if argument.is_dir():
            sources += sorted(path for path in argument.iterdir() if path.name.lower().endswith(kind.suffixes))
        else:
            sources.append(argument)
    if not sources:
        raise ValueError(f"the folder holds no {list_of(kind.suffixes)} file")
    return sources


def result_paths(args: argparse.Namespace, source: Path, into_folders: bool) -> dict[str, Path]:
    """Option -> file to write for one volume or image."""
    kind: Kind = args.kind
    stem = re.sub(rf"({'|'.join(map(re.escape, kind.suffixes))})$", "", source.name, flags=re.IGNORECASE)
    paths = {option: getattr(args, option) for option in kind.results if getattr(args, option)}
    for option, path in paths.items():
        names_file = path.name.endswith(kind.results[option])
        if into_folders and names_file:
            raise ValueError(f"for several {kind.noun}s --{option} names a folder")
        if into_folders or path.is_dir():
            paths[option] = path / (stem + kind.results[option][0])
        elif not names_file:
            raise ValueError(f"--{option} names a {' or '.join(kind.results[option])} file")
    return paths


def segment_one(args: argparse.Namespace, job: Job, prompts: tuple[str, ...]) -> int:
    try:
        sys.stdout.write(run(args, job, prompts, set()))
    except (MedImageParseError, OSError) as error:
        return fail(error, job.source)
    return DONE


def segment_many(args: argparse.Namespace, jobs: list[Job], prompts: tuple[str, ...]) -> int:
    """Keeps a few requests in flight; a file that fails does not stop the others."""
    kind: Kind = args.kind
    with connect(args) as client:
        state = client.health()
    if not state.models.get(kind.model):
        raise ServerUnavailable(state.problem or f"the server at {args.url} has not loaded {kind.model}")
    n_failed = 0
    executor = ThreadPoolExecutor(args.in_flight)
    clients: set[Client] = set()
    try:
        job_of = {executor.submit(run, args, job, prompts, clients): job for job in jobs}
        for future in tqdm(as_completed(job_of), total=len(jobs), unit=kind.noun, disable=None):
            try:
                future.result()
            except (MedImageParseError, OSError) as error:
                n_failed += 1
                tqdm.write(describe(error, job_of[future].source), file=sys.stderr, end="")
    except KeyboardInterrupt:
        executor.shutdown(wait=False, cancel_futures=True)
        for client in clients:
            if client.protocol == "grpc":  # cancels what the server is working on; over HTTP it is waited for
                client.close()
        raise
    finally:
        executor.shutdown()
    sys.stdout.write(f"{len(jobs) - n_failed} of {len(jobs)} {kind.noun}s segmented\n")
    return SOME_FAILED if n_failed else DONE


def run(args: argparse.Namespace, job: Job, prompts: tuple[str, ...], clients: set[Client]) -> str:
    """Segments one file, writes its results and gives a table of what was found; `clients` gets the client it uses."""
    kind: Kind = args.kind
    with connect(args) as client:
        clients.add(client)
        result = kind.segment(args, client, job.source, prompts)
    for path in job.results.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    result.save(job.results["output"])
    if "preview" in job.results:
        result.preview(job.results["preview"])
    if "report" in job.results:
        report = json.dumps(result.report, indent=2, ensure_ascii=False)
        job.results["report"].write_text(report + "\n", "utf-8")
    return kind.table(result)


def segment_volume(args: argparse.Namespace, client: Client, path: Path, prompts: tuple[str, ...]) -> Segmentation:
    return client.segment(
        path, prompts, intensity=args.intensity, orientation=args.orientation, slice_axis=args.slice_axis
    )


def segment_image(args: argparse.Namespace, client: Client, path: Path, prompts: tuple[str, ...]) -> ImageSegmentation:
    return client.segment_image(
        path,
        prompts or None,
        image_type=args.image_type,
        joint=args.joint,
        p_value_threshold=args.p_value_threshold,
        window=args.window,
    )


def volume_table(result: Segmentation) -> str:
    """One line a prompt."""
    lines = [f"{'label':>5}  {'score':>5}  {'voxels':>9}  {'ml':>8}  prompt\n"]
    for prompt, label in result.labels.items():
        described = result.describe(prompt)
        score, voxels, volume_ml = (described[name] for name in ("highest_score", "voxels", "volume_ml"))
        ml = "-" if volume_ml is None else f"{volume_ml:.1f}"
        cut = "  (cut to 77 tokens)" if described["truncated"] else ""
        lines.append(f"{label:>5}  {score:>5.2f}  {voxels:>9}  {ml:>8}  {prompt}{cut}\n")
    return "".join(lines)


def image_table(result: ImageSegmentation) -> str:
    """One line a prompt, then what a recognition left out."""
    lines = [f"{'label':>5}  {'highest':>7}  {'pixels':>9}  {'p-value':>7}  {'category':<19}  prompt\n"]
    for prompt, label in result.labels.items():
        described = result.describe(prompt)
        p_value = "-" if described["p_value"] is None else f"{described['p_value']:.3f}"
        cut = "  (cut to 77 tokens)" if described["truncated"] else ""
        lines.append(
            f"{label:>5}  {described['highest_probability']:>7.2f}  {described['area_pixels']:>9}  {p_value:>7}  "
            f"{described['category']:<19}  {prompt}{cut}\n"
        )
    lines += [f"left out: {rejected['text']} ({rejected['reason']})\n" for rejected in result.report["rejected"]]
    return "".join(lines)


VOLUMES = Kind(
    noun="volume",
    model=MODEL_3D,
    suffixes=volume.SUFFIXES,
    results={"output": (".nii.gz", ".nii"), "preview": (".png",), "report": (".json",)},
    segment=segment_volume,
    table=volume_table,
)
IMAGES = Kind(
    noun="image",
    model=MODEL_2D,
    suffixes=image.SUFFIXES,
    results={"output": (".png", ".npz"), "preview": (".png",), "report": (".json",)},
    segment=segment_image,
    table=image_table,
)


def health(args: argparse.Namespace) -> int:
    with connect(args) as client:
        state = client.health(canary=True)
    if not state.is_live:
        return fail(ServerUnavailable(state.problem or f"the server at {args.url} does not live"))
    sys.stdout.write(f"{state.server} at {args.url}: live\n")
    for name, is_ready in state.models.items():
        sys.stdout.write(f"{name}: {'ready' if is_ready else 'not ready'}\n")
    if state.problem:
        sys.stderr.write(f"medimageparse: {state.problem}\n")
    return DONE if state.is_ready else exit_code(ServerUnavailable())


def fail(error: Exception, source: Path | None = None) -> int:
    """Says in one sentence what went wrong."""
    sys.stderr.write(describe(error, source))
    return exit_code(error)


def describe(error: Exception, source: Path | None = None) -> str:
    sentence = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"medimageparse: {f'{source}: ' if source else ''}{sentence}\n"


def exit_code(error: Exception) -> int:
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
