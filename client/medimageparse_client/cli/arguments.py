"""The command line, as argparse sees it."""

import argparse
import math
import os
from pathlib import Path
from typing import get_args

from medimageparse_contract.image_types import ImageType
from medimageparse_contract.options import Intensity, Orientation

from medimageparse_client.cli.connection import API_KEY
from medimageparse_client.cli.console import EXIT_CODE_HELP, version
from medimageparse_client.cli.evaluate import EVALUATE_HELP, add_options
from medimageparse_client.cli.kinds import IMAGES, VOLUMES
from medimageparse_client.formats.windows import Window

SEGMENT_HELP = """\
The first argument is a volume, or a folder of volumes, and the others are prompts. With --prompt or --prompts-file
all arguments are volumes and folders. For several volumes -o, --preview and --report name folders, and the results
are called after the volumes. In the label map, label 1 is the first prompt, 2 the second, and so on.
- as the volume reads it from standard input; -o - writes the label map (.nii.gz) to standard output.

examples:
  medimageparse segment ct.nii.gz "liver" "left kidney" -o masks.nii.gz --preview masks.png --report report.json
  medimageparse segment scans/ "liver" "left kidney" -o masks/ --skip-existing
  medimageparse segment a.nii.gz b.nii.gz --prompt "liver" --prompt "left kidney" -o masks/ --preview masks/

"""

SEGMENT_IMAGE_HELP = """\
The first argument is an image or a DICOM file with one slice, or a folder of them, and the others are prompts. With
--prompt or --prompts-file all arguments are images and folders. With --image-type and no prompt, all that the model
knows in such an image is looked for. For several images -o, --preview and --report name folders, each its own, and
the results are called after the images. In the label map (.png) label 1 is the first prompt, 2 the second, and so on;
where two overlap, the more probable one is shown. An .npz holds the probability of each.
- as the image reads it from standard input; -o - writes the label map (.png) to standard output.

examples:
  medimageparse segment-image xray.png "left lung" "right lung" -o masks.png --preview overlay.png --report report.json
  medimageparse segment-image xray.png --image-type X-Ray-Chest -o masks.png
  medimageparse segment-image slice.dcm "nodule" --window lung -o masks.npz

"""


def build_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="medimageparse",
        description="Segment medical images and volumes from text on a Triton Inference Server. For research only.",
        epilog=EXIT_CODE_HELP,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument("--url", default="localhost:8001", help="host:port of the server (default: %(default)s)")
    server.add_argument("--protocol", choices=["grpc", "http"], help="default: grpc, or that of http://host:port")
    server.add_argument(
        "--ca", type=file_name, metavar="FILE", help="PEM: who signed the certificate of grpcs:// or https://"
    )
    server.add_argument("--certificate", type=file_name, metavar="FILE", help="PEM: who you are, for mutual TLS")
    server.add_argument("--certificate-key", type=file_name, metavar="FILE", help="PEM: the key of that certificate")
    server.add_argument(
        "--api-key-file", type=file_name, metavar="FILE", help=f"what a proxy asks for; or set {API_KEY}"
    )
    server.add_argument("--debug", action="store_true", help="show where this program failed")
    batch = argparse.ArgumentParser(add_help=False)
    batch.add_argument("--report", type=result_name, help="the server's report to write (.json)")
    batch.add_argument("--prompt", action="append", default=[], help="a prompt; may be repeated")
    batch.add_argument("--prompts-file", type=file_name, help="a text file, one prompt a line; # begins a comment line")
    batch.add_argument("--timeout", type=seconds, default=600.0, help="seconds for a request (default: %(default)g)")
    batch.add_argument(
        "--in-flight", type=int, choices=range(1, 33), metavar="N", default=3, help="requests at a time (default: 3)"
    )
    batch.add_argument(
        "--retry-for",
        type=seconds_or_0,
        default=120.0,
        metavar="SECONDS",
        help="how long to wait for a server that restarts or is overloaded; 0 never (default: %(default)g)",
    )
    batch.add_argument(
        "--skip-existing", action="store_true", help="leave out files whose results are there, to go on with a run"
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
    segment.add_argument("-o", "--output", type=result_name, required=True, help="label map to write (.nii.gz or .nii)")
    segment.add_argument("--preview", type=result_name, help="picture of a few slices to write (.png)")
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
        "arguments", nargs="+", metavar="IMAGE PROMPT", help="a .png, .jpg or DICOM file and the prompts"
    )
    picture.add_argument(
        "-o", "--output", type=result_name, required=True, help="label map (.png) or probabilities (.npz)"
    )
    picture.add_argument("--preview", type=result_name, help="picture of the image with its labels to write (.png)")
    picture.add_argument("--image-type", choices=get_args(ImageType), help="kind of image; see below")
    together = picture.add_mutually_exclusive_group()
    together.add_argument("--joint", action="store_true", default=None, help="decode all prompts together")
    together.add_argument("--separate", action="store_false", dest="joint", help="decode each prompt alone")
    picture.add_argument("--p-value-threshold", type=float, metavar="P", help="leave out what is less probable")
    picture.add_argument("--window", choices=get_args(Window), help="what to see in a CT slice in DICOM")

    evaluate = commands.add_parser(
        "evaluate",
        parents=[server],
        help="score the server on cases with a known truth, beside the model cards' numbers",
        usage="%(prog)s IMAGES -o OUT [options]",
        epilog=EVALUATE_HELP + EXIT_CODE_HELP,
        formatter_class=raw,
    )
    add_options(evaluate, positive)

    health = commands.add_parser(
        "health",
        parents=[server],
        help="have a tiny picture segmented by each model",
        epilog=EXIT_CODE_HELP,
        formatter_class=raw,
    )
    health.add_argument("--timeout", type=seconds, default=60.0, help="seconds to wait (default: %(default)g)")
    return parser


def file_name(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    # shells leave ~ as it is in --output=~/masks
    return Path(os.path.expanduser(text) if text.startswith("~/") else text)


def result_name(text: str) -> Path | str:
    """A path, or - for standard output."""
    return "-" if text in ("-", "/dev/stdout", "/dev/fd/1") else file_name(text)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def seconds_or_0(text: str) -> float:
    return 0.0 if float(text) == 0 else seconds(text)
